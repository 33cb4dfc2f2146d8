/**
 * Bytes that go to the destination as they are: the head of QEMU's stream before any page, device state after the last one,
 * and what post-copy begins with. Device state comes while the last pages are still being encoded, so it waits here, bounded.
 */
import { MigrationFault } from "../../shared/fault.ts";

/** Device state of stock guests is 10 KiB to a few MiB. */
const QUEUED_BYTES_MAX = 64 << 20;

/** `device` goes behind all pending pages, the others ahead of them. A frame of `discards` is one piece. */
export type VerbatimKind = "head" | "device" | "discards" | "package";

interface Piece {
  readonly bytes: Uint8Array;
  readonly kind: VerbatimKind;
}

export class VerbatimQueue {
  private readonly pieces: Piece[] = [];
  private offset = 0;
  private bytes = 0;

  get isEmpty(): boolean {
    return this.bytes === 0;
  }

  /** Of what is next; only when not empty. */
  get kind(): VerbatimKind {
    return this.pieces[0]!.kind;
  }

  /** Copies the piece. @throws MigrationFault `not-supported` when more than 64 MiB wait */
  push(piece: Uint8Array, kind: VerbatimKind): void {
    if (piece.length === 0) return;
    if (this.bytes + piece.length > QUEUED_BYTES_MAX)
      throw new MigrationFault(
        "not-supported",
        `QEMU sent more than ${QUEUED_BYTES_MAX} bytes of device state at once`,
      );
    this.pieces.push({ bytes: piece.slice(), kind });
    this.bytes += piece.length;
  }

  /** Moves at most `limit` bytes of the next kind to `at` in memory. @returns how many */
  take(memory: Uint8Array, at: number, limit: number): number {
    const { kind } = this;
    let taken = 0;
    while (taken < limit && this.pieces[0]?.kind === kind) {
      const piece = this.pieces[0].bytes;
      const length = Math.min(limit - taken, piece.length - this.offset);
      memory.set(piece.subarray(this.offset, this.offset + length), at + taken);
      taken += length;
      this.offset += length;
      if (this.offset < piece.length) continue;
      this.pieces.shift();
      this.offset = 0;
      if (kind === "discards") break;
    }
    this.bytes -= taken;
    return taken;
  }
}
