/**
 * Finds the end of QEMU's stream. After RAM the stream is opaque, and with a return path the socket stays open, so the
 * end must be known from the bytes: the end mark, and a description of the machine in JSON with its length before it.
 *
 *     … 00 EOF | 06 VMDESCRIPTION | be32 length | { … }      (migration/savevm.c, qemu_savevm_state_complete_precopy)
 *
 * Device state may hold such bytes by chance. QEMU writes its JSON in printable ASCII (qobject/json-writer.c escapes the
 * rest), and a head begins with 00: so a candidate ends with the first other byte, and there is one at a time.
 * It is the end when its length leads exactly to the last byte that came, and what stands there is a JSON object.
 * Device state that holds a whole description of its own, which a read ends with, is taken for the end; what comes after
 * it is then a fault of the stream and not lost.
 *
 * Bounded: one candidate is kept, up to its limit; a byte is looked at once.
 */
import { EOF, VMDESCRIPTION } from "./ram-section.ts";

/** Descriptions are tens to hundreds of KiB; a candidate that claims more is none. */
const DESCRIPTION_BYTES_MAX = 16 << 20;
/**
 * 00, 06, length, and the JSON's first three bytes: brace, quote, and a letter ("configuration" or "page_size").
 * With fewer of them, device state that ends with 00 06 would make a head of the real one's length.
 */
const HEAD = 9;
const TEXT_AT = 6;
const CLOSING_BRACE = 0x7d;

export class StreamEnd {
  private readonly descriptionBytesMax: number;
  /** The last bytes outside of a candidate, in which a head may begin. */
  private readonly tail = new Uint8Array(HEAD - 1);
  private tailLength = 0;
  /** What came of the candidate's JSON; grows with it. */
  private text = new Uint8Array(0);
  private textLength = 0;
  /** Length that the candidate claims; 0: there is none. */
  private claimed = 0;

  constructor(descriptionBytesMax = DESCRIPTION_BYTES_MAX) {
    this.descriptionBytesMax = descriptionBytesMax;
  }

  /** Looks at the next bytes. @returns is the stream complete with the last of them? */
  push(piece: Uint8Array): boolean {
    let at = 0;
    while (at < piece.length) at = this.claimed > 0 ? this.followCandidate(piece, at) : this.findHead(piece, at);
    return this.claimed > 0 && this.textLength === this.claimed && this.isObject();
  }

  /** @returns where to go on: behind a head that became the candidate, or the end */
  private findHead(piece: Uint8Array, from: number): number {
    const before = this.tailLength;
    if (before > 0) {
      // a head may have begun in the bytes before; only these are copied, or many false heads would cost their square
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

  /** Where a head begins in [from, until), all of it there; -1 when none does. */
  private headIn(bytes: Uint8Array, from: number, until: number): number {
    const last = Math.min(until - 1, bytes.length - HEAD);
    for (let at = bytes.indexOf(EOF, from); at >= 0 && at <= last; at = bytes.indexOf(EOF, at + 1)) {
      if (bytes[at + 1] !== VMDESCRIPTION || !isTextStart(bytes, at + TEXT_AT)) continue;
      const length = claimedLength(bytes, at);
      if (length >= HEAD - TEXT_AT && length <= this.descriptionBytesMax) return at;
    }
    return -1;
  }

  /** Makes the head at `at` the candidate. @returns the address behind it */
  private begin(bytes: Uint8Array, at: number): number {
    this.claimed = claimedLength(bytes, at);
    this.textLength = 0;
    this.tailLength = 0;
    this.keep(bytes, at + TEXT_AT, at + HEAD);
    return at + HEAD;
  }

  /** @returns where to go on: the first byte that is not the candidate's, or the end */
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

  /** The rare case, on a candidate that ends where the bytes end. */
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
