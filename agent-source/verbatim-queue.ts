/**
 * Bytes of QEMU's stream that go to the destination as they are: the head of the stream before any page, and device
 * state after the last one. Device state comes while the last pages are still being encoded, so it waits here, bounded.
 */
import { MigrationFault } from "../shared/fault.ts";

/** Device state of stock guests is 10 KiB to a few MiB. */
const QUEUED_BYTES_MAX = 64 << 20;

export class VerbatimQueue {
  private readonly pieces: Uint8Array[] = [];
  private offset = 0;
  private bytes = 0;
  /** Must all pending pages go first? */
  afterPages = false;

  get isEmpty(): boolean {
    return this.bytes === 0;
  }

  /** Copies the piece. @throws MigrationFault `not-supported` when more than 64 MiB wait */
  push(piece: Uint8Array, afterPages: boolean): void {
    if (this.bytes + piece.length > QUEUED_BYTES_MAX)
      throw new MigrationFault(
        "not-supported",
        `QEMU sent more than ${QUEUED_BYTES_MAX} bytes of device state at once`,
      );
    this.afterPages = afterPages;
    this.pieces.push(piece.slice());
    this.bytes += piece.length;
  }

  /** Moves at most `limit` bytes to `at` in memory. @returns how many */
  take(memory: Uint8Array, at: number, limit: number): number {
    let taken = 0;
    while (taken < limit && this.pieces.length > 0) {
      const piece = this.pieces[0]!;
      const length = Math.min(limit - taken, piece.length - this.offset);
      memory.set(piece.subarray(this.offset, this.offset + length), at + taken);
      taken += length;
      this.offset += length;
      if (this.offset < piece.length) continue;
      this.pieces.shift();
      this.offset = 0;
    }
    this.bytes -= taken;
    return taken;
  }
}
