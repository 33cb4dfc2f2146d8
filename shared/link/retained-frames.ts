/**
 * Encoded frames that were sent and not acknowledged, kept to be sent again after a cut, each in a buffer of its own:
 *
 *     | head room | body … | free |      buffers are made when they are first needed, and used again last in, first out
 *
 * Bounded: what does not fit is a fault of whoever sends more than the credit window allows.
 */
import { MigrationFault } from "../fault.ts";
import type { Frame } from "../protocol/messages.ts";
import { FRAME_HEAD_BYTES } from "./frame-wire.ts";

/** Head room and body are placed as they were: memory is moved by words only between places that are aligned alike. */
const ALIGNMENT = 8;
const HEAD_ROOM = Math.ceil(FRAME_HEAD_BYTES / ALIGNMENT) * ALIGNMENT;

export class RetainedFrames {
  private readonly capacity: number;
  private readonly bufferBytes: number;
  /** Oldest first. */
  private readonly kept: { readonly buffer: Uint8Array; readonly length: number }[] = [];
  private readonly free: Uint8Array[] = [];
  private bytes = 0;

  /** @param capacity of all bodies together, and @param frameBytes of the largest, bytes */
  constructor(capacity: number, frameBytes: number) {
    this.capacity = capacity;
    this.bufferBytes = HEAD_ROOM + ALIGNMENT + frameBytes;
  }

  /** @returns the same frame with a body that stays until it is dropped; @throws MigrationFault `internal` without room */
  keep(frame: Frame): Frame {
    const { length, byteOffset } = frame.body;
    if (this.bytes + length > this.capacity)
      throw new MigrationFault(
        "internal",
        `More than ${this.capacity} bytes of frames are not acknowledged; the credit window should have stopped them`,
      );
    const buffer = this.free.pop() ?? new Uint8Array(this.bufferBytes);
    const at = HEAD_ROOM + (byteOffset % ALIGNMENT);
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
    this.free.push(oldest.buffer);
  }
}
