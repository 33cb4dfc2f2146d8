/** Pages of a guest that there is not, for a rehearsal; and what hosts are compared by (agent-source/planning/host-speed.ts), so a change here is one of the model. */
import { PAGE_SIZE } from "../units.ts";

/** Every fourth word of eight bytes is of no pattern: zstd finds in them about what it finds in process memory. */
const NOISE_EVERY = 4;
/** Words that a guest has changed in a page between two passes. */
const CHANGED_WORDS = 4;

/** Fills `pages` pages at `at`, a multiple of 8. */
export function simulatePages(memory: Uint8Array, at: number, pages: number): void {
  const words = new DataView(memory.buffer, memory.byteOffset + at, pages * PAGE_SIZE);
  let noise = 1;
  for (let offset = 0; offset < words.byteLength; offset += 8) {
    noise = Math.imul(noise, 1664525) + 1013904223;
    const isNoise = (offset >> 3) % NOISE_EVERY === 0;
    words.setInt32(offset, isNoise ? noise : offset >> 9);
    words.setInt32(offset + 4, isNoise ? Math.imul(noise, 0x9e3779b1) : 0x7f);
  }
}

/** Changes a few words of each to what they have in this version, from 1. */
export function changePages(memory: Uint8Array, at: number, pages: number, version: number): void {
  const words = new DataView(memory.buffer, memory.byteOffset + at, pages * PAGE_SIZE);
  for (let page = 0; page < pages; page++)
    for (let word = 0; word < CHANGED_WORDS; word++)
      words.setInt32(page * PAGE_SIZE + word * (PAGE_SIZE / CHANGED_WORDS), version * pages + page);
}

const SECOND_BLOCK_PAGES = 64;

/** The blocks of a guest that there is not: two, since of a single one code would learn that the first page of a block is 0. */
export const simulatedBlocks = (pageCount: number) => [
  { name: "pc.ram", byteLength: (pageCount - SECOND_BLOCK_PAGES) * PAGE_SIZE, pageSize: PAGE_SIZE },
  { name: "vga.vram", byteLength: SECOND_BLOCK_PAGES * PAGE_SIZE, pageSize: PAGE_SIZE },
];
