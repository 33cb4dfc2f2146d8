/**
 * `--verify`: compares the memory of the stopped guest at the source with the memory of the paused guest at the
 * destination, page by page, before the guest is granted.
 */

import { MigrationFault } from "../../shared/fault.ts";
import { holdsOnlyId, readGenerationId } from "../../shared/qemu/inspect/generation-id.ts";
import { guestMemoryRanges } from "../../shared/qemu/inspect/preflight.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { within } from "../../shared/runtime/deferred.ts";
import { migrationFile } from "../../shared/runtime/guest/meeting-place.ts";
import {
  DIGEST_BYTES,
  digestStretch,
  readStretch,
  type SaveMemory,
  STRETCH_BYTES,
} from "../../shared/runtime/guest/memory-digests.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import type { Compared } from "../report/migration-result.ts";
import type { TransferSession } from "../transfer/transfer-session.ts";
import type { SourceContext } from "./source-context.ts";

/**
 * How long to wait for the digests of one stretch, milliseconds. The destination's QEMU may take 60 s of this time to
 * save the stretch (agent-destination/migration/guest-digests.ts), and the agent there then has to read it.
 */
const ANSWERS_WITHIN_MS = 90_000;
/** The most pages that a mismatch's message names, and that findIdPage() searches for the guest's generation id. */
const NAMED_PAGES = 8;

/**
 * Compares all memory of the guest, which stands still meanwhile.
 * @param answersWithinMs how long to wait for the digests of one stretch
 * @throws MigrationFault `verify-mismatch` when a page differs that must not; `timeout`; `peer-invalid` when the
 *   destination sends another number of digests
 */
export async function verifyMemory(
  session: TransferSession,
  cx: SourceContext,
  answersWithinMs = ANSWERS_WITHIN_MS,
): Promise<Compared> {
  const path = migrationFile(cx.call.guest, cx, "verify");
  const save: SaveMemory = (from, length, file) =>
    session.qmp.execute("pmemsave", { val: from, size: length, filename: file }, { timeoutMs: 60_000 });
  const stretches = cut(await guestMemoryRanges(session.qmp));
  const differing: number[] = [];
  let pages = 0;
  for (const [index, { start, byteLength }] of stretches.entries()) {
    const late = (): MigrationFault =>
      new MigrationFault("timeout", `The destination did not send digests of its memory within ${answersWithinMs} ms`, {
        advice: "See the destination agent's log, then migrate again, or without --verify",
      });
    const asked = session.inbox.askDigests(start, byteLength, index === stretches.length - 1);
    const theirs = within(asked, answersWithinMs, late, cx.clock);
    // `theirs` is awaited below, so that both agents work at the same time
    theirs.catch(() => undefined);
    const mine = await digestStretch(save, start, byteLength, path);
    const other = (await theirs).digests;
    if (other.length !== mine.length)
      throw new MigrationFault(
        "peer-invalid",
        `The destination sent ${other.length} bytes of digests for ${mine.length}`,
      );
    for (let at = 0; at < mine.length; at += DIGEST_BYTES, pages++)
      if (Buffer.compare(mine.subarray(at, at + DIGEST_BYTES), other.subarray(at, at + DIGEST_BYTES)) !== 0)
        differing.push(start + (at / DIGEST_BYTES) * PAGE_SIZE);
  }
  if (differing.length === 0) return { pages, exceptions: [] };
  const page = await findIdPage(session.qmp, differing, (at) => readStretch(save, at, PAGE_SIZE, path));
  const wrong = differing.filter((one) => one !== page);
  if (wrong.length === 0 && page !== undefined)
    return {
      pages: pages - 1,
      exceptions: [`vmgenid: the destination's QEMU gave the guest a new generation id, in the page at ${hex(page)}`],
    };
  throw new MigrationFault(
    "verify-mismatch",
    `${wrong.length} of ${pages} pages differ between source and destination, the first ones at the guest-physical addresses ${wrong.slice(0, NAMED_PAGES).map(hex).join(", ")}`,
    { advice: "Nothing was handed over; report this with both agents' logs" },
  );
}

/**
 * Finds the page that holds the guest's generation id (QEMU's device vmgenid). This page may differ, because the
 * destination's QEMU gives the guest a new id. Only the first NAMED_PAGES of the differing pages are searched.
 * @param differing the guest-physical addresses of the pages that differ
 * @param read reads the page at a guest-physical address of this host's guest
 * @returns the page's guest-physical address; undefined when none of the searched pages holds the id and nothing else,
 *   or when the guest has no such id
 */
async function findIdPage(
  qmp: QmpClient,
  differing: readonly number[],
  read: (at: number) => Promise<Uint8Array>,
): Promise<number | undefined> {
  const id = await readGenerationId(qmp);
  if (id === undefined) return undefined;
  for (const at of differing.slice(0, NAMED_PAGES)) if (holdsOnlyId(await read(at), id)) return at;
  return undefined;
}

const hex = (address: number): string => `0x${address.toString(16)}`;

/** Cuts ranges of memory into stretches of STRETCH_BYTES at most. */
function cut(ranges: readonly { start: number; byteLength: number }[]): { start: number; byteLength: number }[] {
  const stretches: { start: number; byteLength: number }[] = [];
  for (const range of ranges)
    for (let at = 0; at < range.byteLength; at += STRETCH_BYTES)
      stretches.push({ start: range.start + at, byteLength: Math.min(STRETCH_BYTES, range.byteLength - at) });
  return stretches;
}
