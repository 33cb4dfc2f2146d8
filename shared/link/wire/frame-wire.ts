/**
 * Writes and reads TransferResponse{frame} by hand, since proto-loader's serialisers are slower
 * (docs/design/wire.md#frames-are-written-by-hand). What is written and read is valid protobuf, and a test holds it
 * equal to protobufjs. Every other message goes through proto-loader's serialisers (proto-files.ts).
 *
 *     0a LEN | 08 sequence | 10 kind | 18 codec | 20 raw length | 29 checksum (8 bytes) | 32 LEN body
 */
import { MigrationFault } from "../../fault.ts";
import type { Frame, FrameCodec, FrameKind } from "../../protocol/stream-messages.ts";
import { PREFIX_BYTES, putPrefix } from "./message-prefix.ts";

const FRAME_TAG = 0x0a;
const SEQUENCE_TAG = 0x08;
const KIND_TAG = 0x10;
const CODEC_TAG = 0x18;
const RAW_LENGTH_TAG = 0x20;
const CHECKSUM_TAG = 0x29;
const BODY_TAG = 0x32;
/** The highest field number of the oneof TransferResponse.message. */
const MESSAGE_FIELD_MAX = 10;
const CHECKSUM_BYTES = 8;
/** The kinds and codecs of frames, at the indexes that are their numbers in proto/ferry/v1/peer.proto. */
const KINDS: readonly (FrameKind | undefined)[] = [undefined, "pages", "verbatim", "discards", "package"];
const CODECS: readonly (FrameCodec | undefined)[] = [undefined, "none", "zstd"];

/** Room for everything that can stand ahead of a body, gRPC's prefix included, bytes. */
export const FRAME_HEAD_BYTES = 64;

/**
 * Returns the message of a frame. If the head room of the frame is large enough, the head is written into it and the
 * body stays in place, so that the message is valid until the frame's memory is used again. Otherwise the message is a
 * copy.
 * @see test/bench/README.md
 */
export function encodeFrame(frame: Frame): Buffer {
  const { sequence, frameKind, codec, rawLength, checksum, body, headRoom = 0 } = frame;
  if (checksum.length !== CHECKSUM_BYTES) throw new RangeError(`a checksum of ${checksum.length} bytes`);
  // the 8 are six tags, and the kind and the codec, which are numbers of one byte
  const fields = 8 + numberBytes(sequence) + numberBytes(rawLength) + CHECKSUM_BYTES + numberBytes(body.length);
  const outer = 1 + numberBytes(fields + body.length);
  const inPlace = headRoom >= outer + fields;
  const message = inPlace
    ? Buffer.from(body.buffer, body.byteOffset - outer - fields, outer + fields + body.length)
    : Buffer.allocUnsafe(outer + fields + body.length);
  let at = putField(message, 0, FRAME_TAG, fields + body.length);
  at = putField(message, at, SEQUENCE_TAG, sequence);
  at = putField(message, at, KIND_TAG, KINDS.indexOf(frameKind));
  at = putField(message, at, CODEC_TAG, CODECS.indexOf(codec));
  at = putField(message, at, RAW_LENGTH_TAG, rawLength);
  message[at++] = CHECKSUM_TAG;
  message.set(checksum, at);
  at = putField(message, at + CHECKSUM_BYTES, BODY_TAG, body.length);
  if (!inPlace) message.set(body, at);
  return message;
}

/**
 * Returns the message of a frame behind gRPC's prefix, in the memory in which the frame lies.
 * @returns undefined if the frame's head room is too small for that
 */
export function prefixedFrame(frame: Frame): Buffer | undefined {
  const { body, headRoom = 0 } = frame;
  const message = encodeFrame(frame);
  const isInPlace = message.buffer === body.buffer && message.byteOffset < body.byteOffset;
  const at = message.byteOffset - PREFIX_BYTES;
  if (!isInPlace || at < body.byteOffset - headRoom) return undefined;
  const whole = Buffer.from(body.buffer, at, PREFIX_BYTES + message.length);
  putPrefix(whole);
  return whole;
}

/**
 * True if a message is a frame. If a message has several fields of the oneof, the last one counts. A message that
 * cannot be read is no frame.
 */
export function isFrame(message: Buffer): boolean {
  try {
    return findFrame(message) !== undefined;
  } catch {
    return false; // proto-loader's deserialiser reads it then, and says what is wrong
  }
}

/** Reads a frame, whose body is a view of the message. @throws MigrationFault `peer-invalid` */
export function decodeFrame(message: Buffer): Frame {
  const fields = findFrame(message);
  if (fields === undefined) throw invalid("no frame in it");
  return readFields(fields);
}

function findFrame(message: Buffer): FieldReader | undefined {
  const reader = new FieldReader(message, 0, message.length);
  let frame: FieldReader | undefined;
  while (!reader.atEnd) {
    const tag = reader.varint();
    if (tag === FRAME_TAG) {
      frame = reader.nested();
    } else {
      if (tag < 8 * (MESSAGE_FIELD_MAX + 1)) frame = undefined;
      reader.skip(tag);
    }
  }
  return frame;
}

function readFields(reader: FieldReader): Frame {
  let sequence = 0;
  let kind = 0;
  let codec = 0;
  let rawLength = 0;
  let checksum: Uint8Array = new Uint8Array(CHECKSUM_BYTES);
  let body: Uint8Array = new Uint8Array(0);
  while (!reader.atEnd) {
    const tag = reader.varint();
    if (tag === SEQUENCE_TAG) sequence = reader.varint();
    else if (tag === KIND_TAG) kind = reader.varint();
    else if (tag === CODEC_TAG) codec = reader.varint();
    else if (tag === RAW_LENGTH_TAG) rawLength = reader.varint();
    else if (tag === CHECKSUM_TAG) checksum = reader.take(CHECKSUM_BYTES);
    else if (tag === BODY_TAG) body = reader.take(reader.varint());
    else reader.skip(tag);
  }
  const frameKind = KINDS[kind];
  const frameCodec = CODECS[codec];
  if (frameKind === undefined) throw invalid(`a frame of kind ${kind}`);
  if (frameCodec === undefined) throw invalid(`a frame of codec ${codec}`);
  if (rawLength > 0xffffffff) throw invalid(`a frame of raw length ${rawLength}`);
  return { kind: "frame", sequence, frameKind, codec: frameCodec, rawLength, checksum, body };
}

function numberBytes(value: number): number {
  let bytes = 1;
  for (let rest = value; rest > 127; rest = Math.floor(rest / 128)) bytes++;
  return bytes;
}

function putField(message: Buffer, at: number, tag: number, value: number): number {
  message[at++] = tag;
  let rest = value;
  while (rest > 127) {
    message[at++] = (rest % 128) | 128;
    rest = Math.floor(rest / 128);
  }
  message[at++] = rest;
  return at;
}

/** Reads the protobuf fields in a stretch of a message, and nothing beyond the stretch. */
class FieldReader {
  private readonly message: Buffer;
  private at: number;
  private readonly end: number;

  constructor(message: Buffer, start: number, end: number) {
    this.message = message;
    this.at = start;
    this.end = end;
  }

  get atEnd(): boolean {
    return this.at === this.end;
  }

  varint(): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 10; i++) {
      if (this.at === this.end) throw invalid("a number that is cut short");
      const byte = this.message[this.at++]!;
      value += (byte & 127) * scale;
      scale *= 128;
      if (byte >= 128) continue;
      if (value > Number.MAX_SAFE_INTEGER) throw invalid("a number beyond 2^53");
      return value;
    }
    throw invalid("a number of more than 10 bytes");
  }

  /** Skips a number. The number of an unknown field may be larger than those that varint() can read. */
  private skipVarint(): void {
    for (let i = 0; i < 10; i++) {
      if (this.at === this.end) throw invalid("a number that is cut short");
      if (this.message[this.at++]! < 128) return;
    }
    throw invalid("a number of more than 10 bytes");
  }

  take(length: number): Uint8Array {
    if (length > this.end - this.at) throw invalid(`${length} bytes where ${this.end - this.at} are left`);
    const from = this.at;
    this.at += length;
    return this.message.subarray(from, this.at);
  }

  nested(): FieldReader {
    const length = this.varint();
    const start = this.at;
    this.take(length);
    return new FieldReader(this.message, start, start + length);
  }

  /** Skips an unknown field, by its wire type. */
  skip(tag: number): void {
    if (tag < 8 || tag > 0xffffffff) throw invalid(`the tag ${tag}`);
    switch (tag % 8) {
      case 0:
        this.skipVarint();
        return;
      case 1:
        this.take(8);
        return;
      case 2:
        this.take(this.varint());
        return;
      case 5:
        this.take(4);
        return;
      default:
        throw invalid(`a field of wire type ${tag % 8}`);
    }
  }
}

const invalid = (what: string): MigrationFault =>
  new MigrationFault("peer-invalid", `A message of the transfer stream has ${what}`);
