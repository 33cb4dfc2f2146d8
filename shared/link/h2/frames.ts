/**
 * The frames of HTTP/2 (RFC 9113, sections 4 and 6): their numbers, and how this client writes them. How they are read
 * is in frame-reader.ts.
 */

/** The bytes with which a client begins a connection, ahead of its first frame. */
const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
export const HEAD_BYTES = 9;
/**
 * The longest payload of a frame, bytes, in both directions. It is the value that every peer has to accept, and that
 * holds where nothing else is announced.
 */
export const PAYLOAD_BYTES_MAX = 16 << 10;
/** The largest window and the largest number of a stream. */
export const WINDOW_MAX = 2 ** 31 - 1;
/** The size of every window until a peer sets another one, bytes. */
export const WINDOW_AT_FIRST = 65_535;
/** The only stream of a connection. */
export const STREAM = 1;

export const TYPE = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;
/** ACK is the flag 1 of SETTINGS and PING, and END_STREAM that of DATA and HEADERS. */
export const FLAG = { ack: 1, endStream: 1, endHeaders: 4, padded: 8, priority: 0x20 } as const;
export const SETTING = { headerTableSize: 1, enablePush: 2, initialWindowSize: 4, maxHeaderList: 6 };

/** Begins a frame. @returns a frame whose payload of `length` bytes is still to be written, from HEAD_BYTES on */
export function frameOf(type: number, flags: number, stream: number, length: number): Buffer {
  const frame = Buffer.allocUnsafe(HEAD_BYTES + length);
  frame.writeUIntBE(length, 0, 3);
  frame[3] = type;
  frame[4] = flags;
  frame.writeUInt32BE(stream, 5);
  return frame;
}

function frameWith(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const frame = frameOf(type, flags, stream, payload.length);
  frame.set(payload, HEAD_BYTES);
  return frame;
}

/** Writes what a connection begins with. @param settings numbers of SETTING with their values */
export function prefaceFrames(settings: readonly (readonly [number, number])[]): Buffer {
  const frame = frameOf(TYPE.settings, 0, 0, 6 * settings.length);
  for (const [index, [number, value]] of settings.entries()) {
    frame.writeUInt16BE(number, HEAD_BYTES + 6 * index);
    frame.writeUInt32BE(value, HEAD_BYTES + 6 * index + 2);
  }
  return Buffer.concat([Buffer.from(PREFACE), frame]);
}

/** Writes HEADERS of a block that fits into one frame, which the headers of a call always do. */
export const headersFrame = (block: Uint8Array): Buffer => frameWith(TYPE.headers, FLAG.endHeaders, STREAM, block);

export const endFrame = (): Buffer => frameOf(TYPE.data, FLAG.endStream, STREAM, 0);

export const settingsAckFrame = (): Buffer => frameOf(TYPE.settings, FLAG.ack, 0, 0);

/** @param payload 8 bytes */
export const pingFrame = (payload: Uint8Array, isAnswer: boolean): Buffer =>
  frameWith(TYPE.ping, isAnswer ? FLAG.ack : 0, 0, payload);

export function resetFrame(errorCode: number): Buffer {
  const frame = frameOf(TYPE.reset, 0, STREAM, 4);
  frame.writeUInt32BE(errorCode, HEAD_BYTES);
  return frame;
}

/** Writes GOAWAY, which ends a connection. It says that no stream of the peer was taken: the peer has opened none. */
export function goAwayFrame(errorCode: number): Buffer {
  const frame = frameOf(TYPE.goAway, 0, 0, 8).fill(0, HEAD_BYTES);
  frame.writeUInt32BE(errorCode, HEAD_BYTES + 4);
  return frame;
}

/** @param stream 0 for the window of the connection */
export function windowUpdateFrame(stream: number, increment: number): Buffer {
  const frame = frameOf(TYPE.windowUpdate, 0, stream, 4);
  frame.writeUInt32BE(increment, HEAD_BYTES);
  return frame;
}
