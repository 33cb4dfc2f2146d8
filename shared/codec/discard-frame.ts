/**
 * The body of a frame of discards: ranges of pages that the destination must forget, because they are sent again.
 *
 *     ( varint(pages from the end of the range before) varint(pages of the range) )+
 *
 * The ranges ascend, and the first range counts from page 0. Page numbers are those of MemoryLayout
 * (shared/page/geometry.ts). Each frame can be read without the frames before it.
 */
import { MigrationFault } from "../fault.ts";
import type { PageSet } from "../page/page-set.ts";

/**
 * The longest body of one frame of discards, bytes. Every contract allows frames of this length (FRAME_BYTES_MIN in
 * shared/protocol/handshake.ts).
 */
export const DISCARD_FRAME_BYTES = 16 << 10;
/** The most bytes that one range takes: two variable-length integers of at most 5 bytes each. */
const RANGE_BYTES_MAX = 10;

/** Encodes the whole set in as many bodies as that takes, each in memory of its own. */
export function encodeDiscards(pages: PageSet): Uint8Array[] {
  const bodies: Uint8Array[] = [];
  const body = new Uint8Array(DISCARD_FRAME_BYTES);
  let at = 0;
  let expected = 0;
  for (let page = pages.next(0); page < pages.pageCount; ) {
    const end = pages.nextAbsent(page);
    at = putVarint(body, putVarint(body, at, page - expected), end - page);
    expected = end;
    page = pages.next(end);
    if (at <= DISCARD_FRAME_BYTES - RANGE_BYTES_MAX) continue;
    bodies.push(body.slice(0, at));
    at = 0;
    expected = 0;
  }
  if (at > 0) bodies.push(body.slice(0, at));
  return bodies;
}

/** Calls `range` for each range of a body that a peer sent. @throws MigrationFault `peer-invalid` */
export function readDiscards(
  body: Uint8Array,
  pageCount: number,
  range: (firstPage: number, pageCount: number) => void,
): void {
  let at = 0;
  let expected = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      if (at === body.length) break;
      const byte = body[at++]!;
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
    throw invalid("a number that is cut short or too large");
  };
  while (at < body.length) {
    const first = expected + varint();
    const count = varint();
    if (count === 0 || first + count > pageCount)
      throw invalid(`a range of ${count} pages from page ${first} on, of ${pageCount}`);
    range(first, count);
    expected = first + count;
  }
}

function putVarint(body: Uint8Array, from: number, value: number): number {
  let at = from;
  let rest = value;
  while (rest > 127) {
    body[at++] = (rest & 127) | 128;
    rest = Math.floor(rest / 128);
  }
  body[at++] = rest;
  return at;
}

const invalid = (what: string): MigrationFault =>
  new MigrationFault("peer-invalid", `The source sent a frame of discards with ${what}`, { role: "source" });
