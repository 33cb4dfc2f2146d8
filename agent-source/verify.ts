/** `--verify`: the stopped source's memory against the paused destination's, page by page, before the commit. */
import { join } from "node:path";
import { MigrationFault } from "../shared/fault.ts";
import { guestMemoryRanges } from "../shared/qemu/preflight.ts";
import { DIGEST_BYTES, digestStretch, STRETCH_BYTES } from "../shared/runtime/memory-digests.ts";
import { PAGE_SIZE } from "../shared/units.ts";
import type { Feed } from "./feed.ts";
import type { SourceContext } from "./source-context.ts";

/** Pages named in the message of a mismatch. */
const NAMED_PAGES = 8;

/** @returns pages compared @throws MigrationFault `verify-mismatch` */
export async function verifyMemory(feed: Feed, cx: SourceContext): Promise<number> {
  const path = join(cx.config.runtimeDirectory, `${cx.id}.verify`);
  const stretches = cut(await guestMemoryRanges(feed.qmp));
  const differing: number[] = [];
  let pages = 0;
  for (const [index, { start, byteLength }] of stretches.entries()) {
    const theirs = feed.inbox.askDigests(start, byteLength, index === stretches.length - 1);
    const mine = await digestStretch(
      (from, length, file) =>
        feed.qmp.execute("pmemsave", { val: from, size: length, filename: file }, { timeoutMs: 60_000 }),
      start,
      byteLength,
      path,
    );
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
  if (differing.length === 0) return pages;
  const named = differing
    .slice(0, NAMED_PAGES)
    .map((one) => `0x${one.toString(16)}`)
    .join(", ");
  throw new MigrationFault(
    "verify-mismatch",
    `${differing.length} of ${pages} pages differ between source and destination, first at guest-physical ${named}`,
    { advice: "Nothing was handed over; report this with both agents' logs" },
  );
}

function cut(ranges: readonly { start: number; byteLength: number }[]): { start: number; byteLength: number }[] {
  const stretches: { start: number; byteLength: number }[] = [];
  for (const range of ranges)
    for (let at = 0; at < range.byteLength; at += STRETCH_BYTES)
      stretches.push({ start: range.start + at, byteLength: Math.min(STRETCH_BYTES, range.byteLength - at) });
  return stretches;
}
