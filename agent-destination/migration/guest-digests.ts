/** Answers the source's requests for digests of the loaded guest's memory (`--verify`). */
import { MigrationFault } from "../../shared/fault.ts";
import { migrationFile } from "../../shared/runtime/guest/meeting-place.ts";
import { digestStretch } from "../../shared/runtime/guest/memory-digests.ts";
import type { GuestProcess } from "../guest/guest-process.ts";
import type { Receiver } from "../replay/receiver.ts";
import type { DestinationContext } from "./destination-context.ts";

/** How long QEMU may take to save one stretch of memory to a file, milliseconds. */
const SAVES_WITHIN_MS = 60_000;

/**
 * Sends a digest of each page of one stretch of guest-physical memory: `byteLength` bytes from the address `start`.
 * Never rejects: a fault is given to receiver.fail().
 */
export function answerDigests(
  guest: GuestProcess,
  receiver: Receiver,
  cx: DestinationContext,
  { start, byteLength }: { readonly start: number; readonly byteLength: number },
): Promise<void> {
  const path = migrationFile(cx.guest, cx, "verify-destination");
  return digestStretch(
    (from, length, file) =>
      guest.qmp.execute("pmemsave", { val: from, size: length, filename: file }, { timeoutMs: SAVES_WITHIN_MS }),
    start,
    byteLength,
    path,
  )
    .then((digests) => void receiver.channel.send({ kind: "pageDigests", start, byteLength, digests, last: false }))
    .catch((thrown: unknown) => receiver.fail(MigrationFault.from(thrown)));
}
