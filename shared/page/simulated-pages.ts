/**
 * The pages of the simulated guest that the agents move for their warm-up. Hosts are also compared by how fast they
 * compress these pages (agent-source/planning/host-speed.ts), so a change of the pages changes the figures of the model
 * (docs/decisions/0042).
 */
import { PAGE_SIZE } from "../units.ts";

/**
 * Of this many words of eight bytes, one has no pattern. With one in four, zstd compresses these pages about as well as
 * the memory of a process.
 */
const NOISE_EVERY = 4;
/** How many words of four bytes the guest changes in a page between two passes. */
const CHANGED_WORDS = 4;

/** Fills `pages` pages at `at`, always with the same content. @param at the offset in `memory`, a multiple of 8 */
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

/**
 * Changes a few words of each page, in each version to other values.
 * @param at the offset of the pages in `memory`
 * @param version from 1 on
 */
export function changePages(memory: Uint8Array, at: number, pages: number, version: number): void {
  const words = new DataView(memory.buffer, memory.byteOffset + at, pages * PAGE_SIZE);
  for (let page = 0; page < pages; page++)
    for (let word = 0; word < CHANGED_WORDS; word++)
      words.setInt32(page * PAGE_SIZE + word * (PAGE_SIZE / CHANGED_WORDS), version * pages + page);
}

const SECOND_BLOCK_PAGES = 64;

/**
 * The RAM blocks of the simulated guest. There are two, since with a single block V8 would compile code for blocks
 * whose first page is always page 0.
 */
export const simulatedBlocks = (pageCount: number) => [
  { name: "pc.ram", byteLength: (pageCount - SECOND_BLOCK_PAGES) * PAGE_SIZE, pageSize: PAGE_SIZE },
  { name: "vga.vram", byteLength: SECOND_BLOCK_PAGES * PAGE_SIZE, pageSize: PAGE_SIZE },
];
