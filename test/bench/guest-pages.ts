/**
 * Makes guest memory for benchmarks from a seed. Every page has two versions and the rounds of a benchmark alternate
 * between them, so that each round sees pages that differ from what was sent last, or do not differ, by the kind of
 * page.
 */
import type { RamBlock } from "../../shared/protocol/messages.ts";
import { encodeRamEnd, StreamWriter } from "../../shared/qemu/stream/stream-writer.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import { StreamBytes } from "../support/fake-stream.ts";

/** How the second version of a page differs from the first. */
export type GuestKind = "zero" | "same" | "sparse" | "random";
export const GUEST_KINDS: readonly GuestKind[] = ["zero", "same", "sparse", "random"];
/** The number of RAM's section in the streams. */
const SECTION = 2;
/** The length of a frame's body, bytes: the agents' default. */
export const FRAME_BYTES = 256 << 10;
/** How many pages a RAM section of the streams has. */
const RECORDS_PER_SECTION = 256;
/**
 * The most bytes that a stream of full pages takes, with a block's name in each record and with the sections' heads.
 */
export const streamBytes = (pages: number): number => pages * (PAGE_SIZE + 32);
/** How many words of 4 bytes differ between the two versions of a sparse page. */
const CHANGED_WORDS = 4;

/** Makes a generator of numbers of 32 bits from a seed (xorshift32). */
export function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** Writes one version of a page to `page`, 4096 bytes. The same index and version always give the same content. */
function writeGuestPage(page: Uint32Array, kind: GuestKind, index: number, version: 0 | 1): void {
  if (kind === "zero") {
    page.fill(0);
    return;
  }
  const next = numbers((index + 1) * 2 + (kind === "random" ? version : 0));
  for (let i = 0; i < page.length; i++) page[i] = next();
  if (kind !== "sparse" || version === 0) return;
  for (let i = 0; i < CHANGED_WORDS; i++) {
    const at = next() % page.length;
    page[at] = ~page[at]!;
  }
}

/** The layout of the streams below: one block of guest memory. */
export const layoutOf = (pages: number): readonly RamBlock[] => [
  { name: "pc.ram", byteLength: pages * PAGE_SIZE, pageSize: PAGE_SIZE },
];

/** Makes what a stream has before its first page. */
export function prologue(pages: number): Buffer {
  const head = new StreamBytes().be32(0x5145564d).be32(3).u8(7).be32(2).bytes(Buffer.from("pc"));
  head.u8(1).be32(SECTION).name("ram").be32(0).be32(4);
  head.be64(pages * PAGE_SIZE + 4).name("pc.ram");
  return head
    .be64(pages * PAGE_SIZE)
    .be64(0x10)
    .u8(0x7e)
    .be32(SECTION)
    .done();
}

/** Writes the content of a page to `page`, 4096 bytes. */
export type PageMaker = (page: Uint32Array, index: number) => void;

/**
 * Writes one pass over the guest as sections of PAGE records, to `at` of `memory`. Zero pages have such records too.
 * @returns the address after the pass
 */
export function writePages(memory: Uint8Array, at: number, pages: number, make: PageMaker): number {
  const content = new Uint32Array(PAGE_SIZE / 4);
  const bytes = new Uint8Array(content.buffer);
  const writer = new StreamWriter(memory, (to) => memory.set(bytes, to));
  writer.layout(layoutOf(pages));
  writer.begin(at, at + streamBytes(pages));
  for (let page = 0; page < pages; page++) {
    if (page % RECORDS_PER_SECTION === 0) writer.partStart(SECTION);
    make(content, page);
    writer.page(page, 0);
    if ((page + 1) % RECORDS_PER_SECTION === 0) writer.partEnd(SECTION);
  }
  return writer.position;
}

export interface PassOptions {
  readonly memory: Uint8Array;
  readonly at: number;
  readonly pages: number;
  readonly kind: GuestKind;
  readonly version: 0 | 1;
}

/** Writes one pass over a guest whose pages are all of one kind. @returns the address after the pass */
export const writePass = ({ memory, at, pages, kind, version }: PassOptions): number =>
  writePages(memory, at, pages, (page, index) => writeGuestPage(page, kind, index, version));

/** Makes what a stream has behind its last page: the end of RAM, and a device state of nothing but a description. */
export function epilogue(): Buffer {
  const description = '{"configuration": {"vmsd_name": "configuration"}, "page_size": 4096}';
  const devices = new StreamBytes().bytes(encodeRamEnd(SECTION)).u8(0, 6).be32(description.length);
  return devices.bytes(Buffer.from(description)).done();
}
