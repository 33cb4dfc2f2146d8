/**
 * Keeps bytes that go to the destination as they are: the part of QEMU's stream before any page, the device state after
 * the last page, and post-copy's discards and package. The device state comes while the last pages are still being
 * encoded, so it waits here. The queue is bounded.
 */
import { MigrationFault } from "../../shared/fault.ts";

/** The most bytes that may wait. The device state of stock guests has 10 KiB to a few MiB. */
const QUEUED_BYTES_MAX = 64 << 20;

/**
 * Bytes of the kind `device` go after all pending pages, bytes of the other kinds before them. A piece of `discards` is
 * a frame of its own.
 */
export type VerbatimKind = "head" | "device" | "discards" | "package";

interface Piece {
  readonly bytes: Uint8Array;
  readonly kind: VerbatimKind;
}

export class VerbatimQueue {
  private readonly pieces: Piece[] = [];
  /** How many bytes of the first piece were taken. */
  private offset = 0;
  /** How many bytes wait, in all pieces. */
  private bytes = 0;

  get isEmpty(): boolean {
    return this.bytes === 0;
  }

  /** The kind of the bytes that are next. Only for a queue that is not empty. */
  get kind(): VerbatimKind {
    return this.pieces[0]!.kind;
  }

  /**
   * Queues a copy of the piece.
   * @throws MigrationFault `not-supported` when more than QUEUED_BYTES_MAX bytes would wait
   */
  push(piece: Uint8Array, kind: VerbatimKind): void {
    if (piece.length === 0) return;
    if (this.bytes + piece.length > QUEUED_BYTES_MAX)
      throw new MigrationFault(
        "not-supported",
        `More than ${QUEUED_BYTES_MAX} bytes of QEMU's stream that are not pages wait for the link`,
      );
    this.pieces.push({ bytes: piece.slice(), kind });
    this.bytes += piece.length;
  }

  /**
   * Moves bytes of the next kind to `at` in memory.
   * @returns how many bytes were moved, at most `limit`
   */
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
