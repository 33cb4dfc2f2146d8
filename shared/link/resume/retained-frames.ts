/**
 * Encoded frames that were sent and not acknowledged, kept to be sent again after a cut. They are acknowledged in their order,
 * so they lie one behind the other in a few large chunks, and a chunk whose last frame is gone is used again:
 *
 *     | head room | body | head room | body … | free |
 *
 * Bounded: what does not fit is a fault of whoever sends more than the credit window allows. A buffer for each frame would be
 * memory touched for the first time, and cleared, with nearly every frame: their sizes are all different.
 */
import { MigrationFault } from "../../fault.ts";
import type { Frame } from "../../protocol/messages.ts";
import { FRAME_HEAD_BYTES } from "../wire/frame-wire.ts";

/** Head room and body are placed as they were: memory is moved by words only between places that are aligned alike. */
const ALIGNMENT = 8;
const HEAD_ROOM = Math.ceil(FRAME_HEAD_BYTES / ALIGNMENT) * ALIGNMENT;

/** Holds two to some hundred frames. A longer frame has a chunk of its own size. */
const CHUNK_BYTES = 1 << 20;
/** Of chunks in which nothing is kept. */
const FREE_CHUNKS_MAX = 2;

interface Chunk {
  readonly buffer: Uint8Array;
  /** Frames in it. */
  frames: number;
}

export class RetainedFrames {
  private readonly capacity: number;
  /** Oldest first. */
  private readonly kept: { readonly chunk: Chunk; readonly length: number }[] = [];
  private readonly free: Chunk[] = [];
  private current: Chunk | undefined;
  /** In `current`, where the next frame goes. */
  private end = 0;
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
    const headRoom = HEAD_ROOM + (byteOffset % ALIGNMENT);
    const chunk = this.chunkFor(headRoom + length);
    const at = this.end + headRoom;
    chunk.buffer.set(frame.body, at);
    chunk.frames++;
    this.end = Math.ceil((at + length) / ALIGNMENT) * ALIGNMENT;
    this.kept.push({ chunk, length });
    this.bytes += length;
    // the sender's checksum is used again for its next frame, as its body is
    const checksum = Uint8Array.from(frame.checksum);
    return { ...frame, checksum, body: chunk.buffer.subarray(at, at + length), headRoom: FRAME_HEAD_BYTES };
  }

  /** The oldest is not needed any more. */
  dropOldest(): void {
    const oldest = this.kept.shift();
    if (oldest === undefined) return;
    const { chunk, length } = oldest;
    this.bytes -= length;
    if (--chunk.frames > 0) return;
    if (chunk === this.current) this.end = 0;
    else this.release(chunk);
  }

  /** The one that is being filled, or one that begins here. */
  private chunkFor(length: number): Chunk {
    const { current } = this;
    if (current !== undefined && this.end + length <= current.buffer.length) return current;
    if (current?.frames === 0) this.release(current);
    const next = (length <= CHUNK_BYTES ? this.free.pop() : undefined) ?? newChunk(Math.max(length, CHUNK_BYTES));
    this.current = next;
    this.end = 0;
    return next;
  }

  private release(chunk: Chunk): void {
    if (chunk.buffer.length === CHUNK_BYTES && this.free.length < FREE_CHUNKS_MAX) this.free.push(chunk);
  }
}

/** Not cleared: all that is read of it was written. */
const newChunk = (bytes: number): Chunk => ({ buffer: Buffer.allocUnsafeSlow(bytes), frames: 0 });
