/**
 * Reads the frames of a connection from bytes as they come, cut anywhere (RFC 9113, sections 4 and 6). DATA is handed
 * on where it lies, in the pieces in which it came. Every other payload is gathered first, in a buffer of its own that
 * has room for the longest frame.
 *
 *     bytes ──> head (9 bytes) ──> DATA: pieces, handed on in place
 *                            └──> others: gathered, then handed on whole; header blocks of several frames as one
 *
 * Invariants: a length is checked before a byte of the payload is taken; nothing is kept of a frame that is over, but
 * for a header block that is not whole; nothing is handed on after stop() or after a fault.
 *
 * Not its job: what settings, windows and headers mean, and the messages in the data.
 */
import { FLAG, HEAD_BYTES, PAYLOAD_BYTES_MAX, STREAM, TYPE } from "./frames.ts";
import { ERROR, NotUnderstood } from "./not-understood.ts";

/**
 * The longest header block, bytes, and the most frames of one. A longer block has more headers than
 * HEADER_LIST_BYTES_MAX (hpack.ts) allows, or bytes that stand for no header.
 */
const BLOCK_BYTES_MAX = 64 << 10;
const BLOCK_FRAMES_MAX = 16;
/** How many bytes a HEADERS frame with a priority has ahead of its part of the header block. */
const PRIORITY_BYTES = 5;
/** The lengths of frames that have one length only. */
const EXACT: Readonly<Record<number, number>> = {
  [TYPE.priority]: 5,
  [TYPE.reset]: 4,
  [TYPE.ping]: 8,
  [TYPE.windowUpdate]: 4,
};
/** Frames that belong to the connection, and never to a stream. */
const OF_CONNECTION: readonly number[] = [TYPE.settings, TYPE.ping, TYPE.goAway];
/** Frames that belong to the stream, and never to the connection. */
const OF_STREAM: readonly number[] = [TYPE.data, TYPE.headers, TYPE.reset, TYPE.continuation];

/** Takes what is read. All payloads are valid only until the call returns. */
export interface FrameTaker {
  /**
   * A DATA frame begins.
   * @param length the length of its payload, padding included, bytes
   * @throws NotUnderstood when the payload is longer than the window allows
   */
  dataBegins(length: number): void;
  /** Takes a piece of data: the bytes from `from` on, up to `to` and without it. */
  data(bytes: Buffer, from: number, to: number): void;
  /**
   * A DATA frame is over.
   * @param padding how many bytes of its payload were no data: the padding, and the byte with the padding's length
   */
  dataEnds(padding: number, endsStream: boolean): void;
  headers(block: Buffer, endsStream: boolean): void;
  reset(errorCode: number): void;
  settings(payload: Buffer): void;
  ping(payload: Buffer, isAnswer: boolean): void;
  goAway(lastStream: number, errorCode: number): void;
  /** @param stream 0 for the window of the connection */
  windowUpdate(stream: number, increment: number): void;
}

export class FrameReader {
  private readonly taker: FrameTaker;
  private readonly head = Buffer.alloc(HEAD_BYTES);
  private headBytes = 0;
  private type = 0;
  private flags = 0;
  private stream = 0;
  /** How many bytes of the payload are still to come. */
  private left = 0;
  /** How many bytes of data of a DATA frame are still to come. */
  private dataLeft = 0;
  /** How many bytes of a DATA frame are no data: its padding, and the byte with the padding's length. */
  private padding = 0;
  /** True until the length of a DATA frame's padding has come. */
  private padUnread = false;
  private readonly payload = Buffer.alloc(PAYLOAD_BYTES_MAX);
  private gathered = 0;
  /** The parts of a header block that is not whole; undefined while there is none. */
  private block: Buffer[] | undefined;
  private blockBytes = 0;
  private blockEndsStream = false;
  private isFirst = true;
  private stopped = false;

  constructor(taker: FrameTaker) {
    this.taker = taker;
  }

  /** Reads nothing any more. */
  stop(): void {
    this.stopped = true;
  }

  /**
   * Reads the first `length` bytes.
   * @throws NotUnderstood for bytes that are no HTTP/2, or ask for what this client does not do
   */
  take(bytes: Buffer, length: number): void {
    let at = 0;
    while (at < length && !this.stopped) {
      if (this.headBytes < HEAD_BYTES) {
        this.head[this.headBytes++] = bytes[at++]!;
        if (this.headBytes === HEAD_BYTES) this.begin();
      } else {
        const end = at + Math.min(this.left, length - at);
        this.left -= end - at;
        this.takePayload(bytes, at, end);
        at = end;
      }
      if (this.headBytes === HEAD_BYTES && this.left === 0 && !this.stopped) this.finish();
    }
  }

  private begin(): void {
    const { head } = this;
    this.left = head.readUIntBE(0, 3);
    this.type = head[3]!;
    this.flags = head[4]!;
    this.stream = head.readUInt32BE(5) & 0x7fffffff;
    this.gathered = 0;
    this.check();
    if (this.type !== TYPE.data) return;
    this.taker.dataBegins(this.left);
    this.dataLeft = this.left;
    this.padding = 0;
    this.padUnread = this.has(FLAG.padded);
    if (this.padUnread && this.left === 0) throw new NotUnderstood("padded data without a padding");
  }

  /** Checks a head before anything of the payload is looked at. */
  private check(): void {
    const { type, left, stream } = this;
    if (this.isFirst && (type !== TYPE.settings || stream !== 0 || this.has(FLAG.ack)))
      throw new NotUnderstood("something else than HTTP/2");
    this.isFirst = false;
    if (left > PAYLOAD_BYTES_MAX)
      throw new NotUnderstood(`a frame of ${left} bytes, where ${PAYLOAD_BYTES_MAX} were allowed`, ERROR.frameSize);
    if ((type === TYPE.continuation) !== (this.block !== undefined))
      throw new NotUnderstood(
        this.block === undefined
          ? "a CONTINUATION frame without a header block before it"
          : "a header block that is cut",
      );
    const exact = EXACT[type];
    const wrongLength =
      (exact !== undefined && left !== exact) ||
      (type === TYPE.settings && (left % 6 !== 0 || (this.has(FLAG.ack) && left > 0))) ||
      (type === TYPE.goAway && left < 8);
    if (wrongLength) throw new NotUnderstood(`a frame of type ${type} with ${left} bytes`, ERROR.frameSize);
    if (OF_CONNECTION.includes(type) ? stream !== 0 : OF_STREAM.includes(type) && stream !== STREAM)
      throw new NotUnderstood(`a frame of type ${type} for stream ${stream}`);
    if (type === TYPE.windowUpdate && stream > STREAM)
      throw new NotUnderstood(`a window for stream ${stream}, which is not open`);
    if (type === TYPE.pushPromise) throw new NotUnderstood("a pushed request, which was not allowed");
  }

  private takePayload(bytes: Buffer, from: number, to: number): void {
    if (this.type === TYPE.data) {
      this.takeData(bytes, from, to);
      return;
    }
    bytes.copy(this.payload, this.gathered, from, to);
    this.gathered += to - from;
  }

  private takeData(bytes: Buffer, from: number, to: number): void {
    let at = from;
    if (this.padUnread) {
      this.padUnread = false;
      const padding = bytes[at++]!;
      this.dataLeft -= 1 + padding;
      if (this.dataLeft < 0) throw new NotUnderstood("padding that is longer than its frame");
      this.padding = 1 + padding;
    }
    const end = Math.min(to, at + this.dataLeft);
    this.dataLeft -= end - at;
    if (end > at) this.taker.data(bytes, at, end);
  }

  /** Takes a frame that is whole. */
  private finish(): void {
    this.headBytes = 0;
    if (this.type === TYPE.data) this.taker.dataEnds(this.padding, this.has(FLAG.endStream));
    else this.finishGathered(this.payload.subarray(0, this.gathered));
  }

  private finishGathered(payload: Buffer): void {
    const { taker, type, stream } = this;
    switch (type) {
      case TYPE.headers:
        this.block = [];
        this.blockBytes = 0;
        this.blockEndsStream = this.has(FLAG.endStream);
        this.addToBlock(this.withoutPadding(payload));
        return;
      case TYPE.continuation:
        this.addToBlock(payload);
        return;
      case TYPE.reset:
        taker.reset(payload.readUInt32BE(0));
        return;
      case TYPE.settings:
        if (!this.has(FLAG.ack)) taker.settings(payload);
        return;
      case TYPE.ping:
        taker.ping(payload, this.has(FLAG.ack));
        return;
      case TYPE.goAway:
        taker.goAway(payload.readUInt32BE(0) & 0x7fffffff, payload.readUInt32BE(4));
        return;
      case TYPE.windowUpdate:
        taker.windowUpdate(stream, payload.readUInt32BE(0) & 0x7fffffff);
        return;
      default:
        // PRIORITY says nothing to a client, and a frame of an unknown type is to be ignored
        return;
    }
  }

  /**
   * Returns the part of the header block that a HEADERS frame has: its payload without the padding, the length of the
   * padding and the priority.
   */
  private withoutPadding(payload: Buffer): Buffer {
    const isPadded = this.has(FLAG.padded);
    const from = (isPadded ? 1 : 0) + (this.has(FLAG.priority) ? PRIORITY_BYTES : 0);
    const to = payload.length - (isPadded ? (payload[0] ?? 0) : 0);
    if (from > to) throw new NotUnderstood("headers that are shorter than their padding");
    return payload.subarray(from, to);
  }

  private addToBlock(part: Buffer): void {
    const block = this.block ?? [];
    this.blockBytes += part.length;
    if (this.blockBytes > BLOCK_BYTES_MAX || block.length >= BLOCK_FRAMES_MAX)
      throw new NotUnderstood(`headers of more than ${BLOCK_BYTES_MAX} bytes or ${BLOCK_FRAMES_MAX} frames`);
    // the next frame is gathered in the same buffer
    block.push(Buffer.from(part));
    if (!this.has(FLAG.endHeaders)) return;
    this.block = undefined;
    this.taker.headers(Buffer.concat(block), this.blockEndsStream);
  }

  private has(flag: number): boolean {
    return (this.flags & flag) !== 0;
  }
}
