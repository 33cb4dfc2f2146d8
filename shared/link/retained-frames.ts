/**
 * Encoded frames that were sent and not acknowledged, kept to be sent again after a cut, each in a buffer of its own:
 *
 *     | head room | body … | free |      of one of a few sizes, used again last in, first out
 *
 * Bounded: what does not fit is a fault of whoever sends more than the credit window allows. Frames of zero runs have a few
 * hundred bytes, others a quarter of a megabyte: with one size for all, memory would be many times what is kept.
 */
import { MigrationFault } from "../fault.ts";
import type { Frame } from "../protocol/messages.ts";
import { FRAME_HEAD_BYTES } from "./frame-wire.ts";

/** Head room and body are placed as they were: memory is moved by words only between places that are aligned alike. */
const ALIGNMENT = 8;
const HEAD_ROOM = Math.ceil(FRAME_HEAD_BYTES / ALIGNMENT) * ALIGNMENT;

/** Buffers have a multiple of this size; the smallest, for frames of zero runs, a part of it. */
const STEP = 16 << 10;
const SMALLEST = 1 << 10;
/** Of free buffers, held on to. */
const FREE_BYTES_MAX = 1 << 20;

export class RetainedFrames {
  private readonly capacity: number;
  /** Oldest first. */
  private readonly kept: { readonly buffer: Uint8Array; readonly length: number }[] = [];
  /** By size in steps. */
  private readonly free: Uint8Array[][] = [];
  private freeBytes = 0;
  private bytes = 0;

  /** @param capacity of all bodies together, bytes */
  constructor(capacity: number) {
    this.capacity = capacity;
  }

  /** @returns the same frame with a body that stays until it is dropped; @throws MigrationFault `internal` without room */
  keep(frame: Frame): Frame {
    const { length, byteOffset } = frame.body;
    if (this.bytes + length > this.capacity)
      throw new MigrationFault(
        "internal",
        `More than ${this.capacity} bytes of frames are not acknowledged; the credit window should have stopped them`,
      );
    const at = HEAD_ROOM + (byteOffset % ALIGNMENT);
    const buffer = this.take(at + length);
    buffer.set(frame.body, at);
    this.kept.push({ buffer, length });
    this.bytes += length;
    // the sender's checksum is used again for its next frame, as its body is
    const checksum = Uint8Array.from(frame.checksum);
    return { ...frame, checksum, body: buffer.subarray(at, at + length), headRoom: FRAME_HEAD_BYTES };
  }

  /** The oldest is not needed any more. */
  dropOldest(): void {
    const oldest = this.kept.shift();
    if (oldest === undefined) return;
    this.bytes -= oldest.length;
    const { buffer } = oldest;
    if (this.freeBytes + buffer.length > FREE_BYTES_MAX) return;
    this.freeBytes += buffer.length;
    this.ofSize(buffer.length).push(buffer);
  }

  private take(length: number): Uint8Array {
    const size = length <= SMALLEST ? SMALLEST : Math.ceil(length / STEP) * STEP;
    const buffer = this.ofSize(size).pop();
    if (buffer === undefined) return new Uint8Array(size);
    this.freeBytes -= buffer.length;
    return buffer;
  }

  private ofSize(size: number): Uint8Array[] {
    const step = Math.floor(size / STEP);
    const known = this.free[step];
    if (known !== undefined) return known;
    const made: Uint8Array[] = [];
    this.free[step] = made;
    return made;
  }
}
