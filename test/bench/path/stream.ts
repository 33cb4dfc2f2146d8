/** Makes the streams that bench:path moves, of a real guest's pages. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PAGE_SIZE } from "../../../shared/units.ts";
import { epilogue, numbers, type PageMaker, prologue, streamBytes, writePages } from "../guest-pages.ts";

/**
 * How the pages of the second pass differ from those of the first. `other`: each has the content of another page of the
 * guest, so that no delta is short. `words`: 4 words of 4 bytes have changed.
 */
export const CHANGES = ["other", "words"] as const;
export type Change = (typeof CHANGES)[number];

export interface StreamFile {
  /** The file with all pieces, one after the other. */
  readonly path: string;
  /** The lengths of the pieces as feeder.c takes them: prologue, first pass, second pass, end. */
  readonly lengths: readonly number[];
  readonly pages: number;
}

const CHANGED_WORDS = 4;
/** How far away the page is whose content a page of the second pass has; a prime number, so that all pages move. */
const FAR = 7919;

/**
 * Writes a stream's pieces to a file of `folder`.
 * @param dump the pages of a guest
 * @param pages how many pages the stream has; of a dump with fewer, pages come several times
 */
export function writeStream(folder: string, dump: Buffer, pages: number, change: Change): StreamFile {
  const count = dump.length / PAGE_SIZE;
  const words = new Uint32Array(dump.buffer, dump.byteOffset, dump.length / 4);
  const pageOf = (index: number): Uint32Array => {
    const at = ((index % count) * PAGE_SIZE) / 4;
    return words.subarray(at, at + PAGE_SIZE / 4);
  };
  const first: PageMaker = (page, index) => page.set(pageOf(index));
  const second: PageMaker = (page, index) => {
    page.set(pageOf(change === "other" ? index + FAR : index));
    if (change === "words") flip(page, index);
  };
  const passes = [first, second].map((make) => {
    const memory = new Uint8Array(streamBytes(pages));
    return memory.subarray(0, writePages(memory, 0, pages, make));
  });
  const pieces = [prologue(pages), ...passes, epilogue()];
  const path = join(mkdtempSync(join(folder, "stream-")), "stream");
  writeFileSync(path, Buffer.concat(pieces));
  return { path, lengths: pieces.map(({ length }) => length), pages };
}

/** Changes a few words, others in each page. */
function flip(page: Uint32Array, index: number): void {
  const next = numbers(index + 1);
  for (let word = 0; word < CHANGED_WORDS; word++) {
    const at = next() % page.length;
    page[at] = ~page[at]!;
  }
}
