/**
 * Encoded frames that were sent and not acknowledged. They are kept to be sent again after a cut. They are acknowledged
 * in their order, so they lie one after the other in a few large chunks. A chunk whose last frame is gone is used
 * again:
 *
 *     | head room | body | head room | body … | free |
 *
 * The memory is bounded: a frame that does not fit is a fault of the sender, which the credit window should have
 * stopped. If each frame had a buffer of its own, nearly every frame would lie in new memory, which is cleared when it
 * is touched for the first time, because the sizes of frames are all different.
 */
import { MigrationFault } from "../../fault.ts";
import type { Frame } from "../../protocol/stream-messages.ts";
import { FRAME_HEAD_BYTES } from "../wire/frame-wire.ts";

/**
 * The copy of a body lies as far beyond a multiple of this number as the body itself, bytes. Between such places memory
 * is copied some seven times as fast as between others (test/bench/README.md).
 */
const ALIGNMENT = 8;
const HEAD_ROOM = Math.ceil(FRAME_HEAD_BYTES / ALIGNMENT) * ALIGNMENT;

/** The size of a chunk, bytes. It holds two to some hundred frames. A longer frame has a chunk of its own size. */
const CHUNK_BYTES = 1 << 20;
/** The most chunks without any frame that are kept to be used again. */
const FREE_CHUNKS_MAX = 2;

interface Chunk {
  readonly buffer: Uint8Array;
  /** How many frames are kept in it. */
  frames: number;
}

export class RetainedFrames {
  private readonly capacity: number;
  /** The frames that are kept, oldest first. */
  private readonly kept: { readonly chunk: Chunk; readonly length: number }[] = [];
  private readonly free: Chunk[] = [];
  private current: Chunk | undefined;
  /** Where the next frame goes in `current`. */
  private end = 0;
  /** The length of all bodies that are kept. */
  private bytes = 0;

  /** @param capacity the most bytes of all bodies together */
  constructor(capacity: number) {
    this.capacity = capacity;
  }

  /**
   * Copies a frame.
   * @returns the same frame, with a body that stays valid until the frame is dropped
   * @throws MigrationFault `internal` when the frame does not fit into the capacity
   */
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
    // the sender uses the memory of the checksum again for its next frame, and that of the body too
    const checksum = Uint8Array.from(frame.checksum);
    return { ...frame, checksum, body: chunk.buffer.subarray(at, at + length), headRoom: FRAME_HEAD_BYTES };
  }

  /** Drops the oldest frame, which is not needed any more. */
  dropOldest(): void {
    const oldest = this.kept.shift();
    if (oldest === undefined) return;
    const { chunk, length } = oldest;
    this.bytes -= length;
    if (--chunk.frames > 0) return;
    if (chunk === this.current) this.end = 0;
    else this.release(chunk);
  }

  /** Returns the chunk that is being filled, or another one from its beginning if `length` bytes do not fit there. */
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

/** Makes a chunk. Its memory is not cleared, since only what was written to it is read. */
const newChunk = (bytes: number): Chunk => ({ buffer: Buffer.allocUnsafeSlow(bytes), frames: 0 });
