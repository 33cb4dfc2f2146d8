/** zstd at the destination: one frame of the peer's into room of a known size. */
import zstd from "zstd-napi/binding.js";
import { MigrationFault } from "../fault.ts";

const context = new zstd.DCtx();

/**
 * Never writes beyond `destination`, whatever the peer claims.
 * @returns bytes written
 * @throws MigrationFault peer-invalid when it is not a zstd frame, not a whole one, or holds more than `destination` does
 */
export function decompressInto(destination: Uint8Array, source: Uint8Array): number {
  try {
    return context.decompress(destination, source);
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new MigrationFault("peer-invalid", `A compressed frame cannot be read: ${reason}`, { cause: thrown });
  }
}
