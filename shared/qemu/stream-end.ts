/**
 * Finds the end of QEMU's stream. After RAM the stream is opaque, and with a return path the socket stays open, so the
 * end must be known from the bytes: the end mark, and a description of the machine in JSON with its length before it.
 *
 *     … 00 EOF | 06 VMDESCRIPTION | be32 length | { … }      (migration/savevm.c, qemu_savevm_state_complete_precopy)
 *
 * Device state may hold the same six bytes by chance, so a place is only taken for the end when its length leads exactly
 * to the last byte that came, and what stands there is a JSON object. No device state ends so by itself: the end mark
 * follows it. Bounded: positions of candidates are kept, and the bytes since the first of them.
 */
import { EOF, VMDESCRIPTION } from "./ram-section.ts";

/** Descriptions are tens of KiB; a candidate that claims more is none. */
const DESCRIPTION_BYTES_MAX = 16 << 20;
const HEAD = 6;

interface Candidate {
  /** Where its JSON begins and ends, bytes from the start of the opaque part. */
  readonly start: number;
  readonly end: number;
}

export class StreamEnd {
  /** Bytes seen so far. */
  private seen = 0;
  /** The last bytes seen, as much as a head or the first open candidate needs. */
  private kept: Uint8Array = new Uint8Array(0);
  private candidates: Candidate[] = [];

  /** Looks at the next bytes. @returns is the stream complete with the last of them? */
  push(piece: Uint8Array): boolean {
    const joined = new Uint8Array(this.kept.length + piece.length);
    joined.set(this.kept);
    joined.set(piece, this.kept.length);
    const base = this.seen - this.kept.length;
    this.seen += piece.length;
    this.findHeads(joined, base, Math.max(0, this.kept.length - HEAD));
    this.candidates = this.candidates.filter((one) => one.end >= this.seen);
    const complete = this.candidates.some(
      (one) => one.end === this.seen && isObject(joined.subarray(one.start - base, one.end - base)),
    );
    const from =
      this.candidates.length === 0 ? this.seen - HEAD : Math.min(...this.candidates.map((one) => one.start - HEAD));
    this.kept = joined.slice(Math.max(0, Math.min(from, this.seen - HEAD) - base));
    return complete;
  }

  private findHeads(bytes: Uint8Array, base: number, from: number): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = bytes.indexOf(EOF, from); at >= 0 && at + HEAD < bytes.length; at = bytes.indexOf(EOF, at + 1)) {
      if (bytes[at + 1] !== VMDESCRIPTION || bytes[at + HEAD] !== 0x7b) continue;
      const length = view.getUint32(at + 2);
      const start = base + at + HEAD;
      if (length < 2 || length > DESCRIPTION_BYTES_MAX || this.candidates.some((one) => one.start === start)) continue;
      this.candidates.push({ start, end: start + length });
    }
  }
}

function isObject(bytes: Uint8Array): boolean {
  if (bytes.at(-1) !== 0x7d) return false;
  try {
    return typeof JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) === "object";
  } catch {
    return false;
  }
}
