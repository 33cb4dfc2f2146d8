/** zstd at the destination: it decompresses one frame of a peer into memory of a known size. */
import zstd from "zstd-napi/binding.js";
import { MigrationFault } from "../fault.ts";

const context = new zstd.DCtx();

/**
 * Decompresses a frame. It never writes beyond `destination`, whatever the peer claims.
 * @returns how many bytes were written
 * @throws MigrationFault `peer-invalid` when `source` is no zstd frame, is not a whole one, or holds more than
 *   `destination` does
 */
export function decompressInto(destination: Uint8Array, source: Uint8Array): number {
  try {
    return context.decompress(destination, source);
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new MigrationFault("peer-invalid", `A compressed frame cannot be read: ${reason}`, { cause: thrown });
  }
}
