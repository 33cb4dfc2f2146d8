/**
 * Finds the end of QEMU's stream. After RAM the stream is opaque, and with a return path the socket stays open. So the
 * end must be known from the bytes: the end mark, and a description of the machine in JSON with its length before it.
 *
 *     … 00 EOF | 06 VMDESCRIPTION | be32 length | { … }      (migration/savevm.c, qemu_savevm_state_complete_precopy)
 *
 * Device state may hold such bytes by chance, so what looks like the end mark, a length and the beginning of JSON (a
 * *head*) is only a candidate. QEMU writes its JSON in printable ASCII (qobject/json-writer.c escapes everything else),
 * and a head begins with 00. So a candidate is dropped at the first byte that is not printable, and there is only one
 * candidate at a time. A candidate is the end when its length leads exactly to the last byte that has come, and its
 * text is a JSON object. If device state holds a whole description of its own, and a read ends exactly with this
 * description, then it is taken for the end. The bytes that come after it are then a fault of the stream, so nothing is
 * lost unnoticed.
 *
 * Memory is bounded: only one candidate is kept, whose length is bounded too. A byte is looked at once.
 */
import { EOF, VMDESCRIPTION } from "./ram-section.ts";

/** The longest description, bytes. Descriptions are tens to hundreds of KiB; a head that claims more is ignored. */
const DESCRIPTION_BYTES_MAX = 16 << 20;
/**
 * Bytes of a head: 00, 06, the length, and the first three bytes of the JSON, which are a brace, a quote and a letter
 * (of "configuration" or "page_size"). If fewer bytes of the JSON were looked at, device state that ends with 00 06
 * could make up a head whose length is made of the bytes of the real head.
 */
const HEAD = 9;
/** Where the JSON begins in a head. */
const TEXT_AT = 6;
const CLOSING_BRACE = 0x7d;

export class StreamEnd {
  private readonly descriptionBytesMax: number;
  /** The last bytes outside of a candidate, in which a head may begin. */
  private readonly tail = new Uint8Array(HEAD - 1);
  private tailLength = 0;
  /** The part of the candidate's JSON that has come. The buffer grows with it. */
  private text = new Uint8Array(0);
  private textLength = 0;
  /** The length that the candidate claims; 0 when there is no candidate. */
  private claimed = 0;

  constructor(descriptionBytesMax = DESCRIPTION_BYTES_MAX) {
    this.descriptionBytesMax = descriptionBytesMax;
  }

  /** Looks at the next bytes. @returns true when the stream is complete with the last of them */
  push(piece: Uint8Array): boolean {
    let at = 0;
    while (at < piece.length) at = this.claimed > 0 ? this.followCandidate(piece, at) : this.findHead(piece, at);
    return this.claimed > 0 && this.textLength === this.claimed && this.isObject();
  }

  /** Looks for a head. @returns where to go on: after a head that became the candidate, or at the end of the piece */
  private findHead(piece: Uint8Array, from: number): number {
    const before = this.tailLength;
    if (before > 0) {
      // a head may have begun in the bytes before: these are joined with the next few bytes and no more, or the cost of
      // many false heads would be the square of their number
      const joined = new Uint8Array(before + Math.min(piece.length - from, HEAD - 1));
      joined.set(this.tail.subarray(0, before));
      joined.set(piece.subarray(from, from + joined.length - before), before);
      const at = this.headIn(joined, 0, before);
      if (at >= 0) return from - before + this.begin(joined, at);
    }
    const at = this.headIn(piece, from, piece.length);
    if (at >= 0) return this.begin(piece, at);
    const fresh = Math.min(HEAD - 1, piece.length - from);
    const old = Math.min(before, HEAD - 1 - fresh);
    this.tail.copyWithin(0, before - old, before);
    this.tail.set(piece.subarray(piece.length - fresh), old);
    this.tailLength = old + fresh;
    return piece.length;
  }

  /** Finds a head that begins in [from, until) and is all there. @returns where it begins, or -1 */
  private headIn(bytes: Uint8Array, from: number, until: number): number {
    const last = Math.min(until - 1, bytes.length - HEAD);
    for (let at = bytes.indexOf(EOF, from); at >= 0 && at <= last; at = bytes.indexOf(EOF, at + 1)) {
      if (bytes[at + 1] !== VMDESCRIPTION || !isTextStart(bytes, at + TEXT_AT)) continue;
      const length = claimedLength(bytes, at);
      if (length >= HEAD - TEXT_AT && length <= this.descriptionBytesMax) return at;
    }
    return -1;
  }

  /** Makes the head at `at` the candidate. @returns where it ends */
  private begin(bytes: Uint8Array, at: number): number {
    this.claimed = claimedLength(bytes, at);
    this.textLength = 0;
    this.tailLength = 0;
    this.keep(bytes, at + TEXT_AT, at + HEAD);
    return at + HEAD;
  }

  /**
   * Takes bytes of the candidate.
   * @returns where to go on: at the first byte that is not the candidate's, or at the end of the piece
   */
  private followCandidate(piece: Uint8Array, from: number): number {
    const end = Math.min(piece.length, from + this.claimed - this.textLength);
    let at = from;
    while (at < end && piece[at]! >= 0x20 && piece[at]! < 0x7f) at++;
    this.keep(piece, from, at);
    if (at < end || (at < piece.length && this.textLength === this.claimed)) this.claimed = 0;
    return at;
  }

  private keep(piece: Uint8Array, from: number, to: number): void {
    const needed = this.textLength + to - from;
    if (needed > this.text.length) {
      const larger = new Uint8Array(Math.min(this.claimed, Math.max(needed, 2 * this.text.length, 65536)));
      larger.set(this.text.subarray(0, this.textLength));
      this.text = larger;
    }
    this.text.set(piece.subarray(from, to), this.textLength);
    this.textLength = needed;
  }

  /**
   * Tells whether the text is a JSON object. This is asked only of a candidate that ends where the bytes end, so it is
   * asked rarely.
   */
  private isObject(): boolean {
    if (this.text[this.textLength - 1] !== CLOSING_BRACE) return false;
    try {
      return typeof JSON.parse(new TextDecoder().decode(this.text.subarray(0, this.textLength))) === "object";
    } catch {
      return false;
    }
  }
}

const claimedLength = (bytes: Uint8Array, at: number): number =>
  ((bytes[at + 2]! << 24) | (bytes[at + 3]! << 16) | (bytes[at + 4]! << 8) | bytes[at + 5]!) >>> 0;

function isTextStart(bytes: Uint8Array, at: number): boolean {
  return bytes[at] === 0x7b && bytes[at + 1] === 0x22 && bytes[at + 2]! >= 0x61 && bytes[at + 2]! <= 0x7a;
}
