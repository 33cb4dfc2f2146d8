/**
 * The guest's memory as numbered pages. The RAM blocks follow one another without gaps, in the order of the stream.
 *
 *     block     pc.ram              pc.bios   /rom@etc/acpi/tables
 *     pages     0 ........ 131071   131072 …  131136 …
 *
 * A page number says nothing about guest-physical addresses: QEMU's stream names a page by its block and its offset in
 * the block.
 */
import { MigrationFault } from "../fault.ts";
import { PAGE_SHIFT, PAGE_SIZE, type PageIndex, pageIndex } from "../units.ts";

/** A RAM block as the stream lists it. */
export interface BlockSize {
  readonly name: string;
  readonly byteLength: number;
}

/** A RAM block with its place in the numbering of pages. */
export interface LaidBlock extends BlockSize {
  readonly firstPage: number;
  readonly pageCount: number;
}

/** How many pages all blocks have together. @param blocks whose lengths are multiples of a page */
export const pageCountOf = (blocks: readonly { readonly byteLength: number }[]): number =>
  blocks.reduce((sum, { byteLength }) => sum + byteLength / PAGE_SIZE, 0);

/**
 * The most pages that a guest may have: 1 TiB of memory. The step from one page number to the next travels as a zigzag
 * varint together with two bits for the kind of the record, and both have to fit in 32 bits
 * (shared/codec/page-frame.ts). For page numbers of 28 bits they take 31.
 */
const MAX_PAGES = 2 ** 28;

export class MemoryLayout {
  readonly blocks: readonly LaidBlock[];
  readonly pageCount: number;
  readonly byteLength: number;

  /**
   * @throws MigrationFault `not-supported` for more than MAX_PAGES pages, `stream-invalid` for a block whose length
   *   is not a multiple of a page
   */
  constructor(blocks: readonly BlockSize[]) {
    const laid: LaidBlock[] = [];
    let firstPage = 0;
    for (const block of blocks) {
      if (block.byteLength % PAGE_SIZE !== 0)
        throw new MigrationFault(
          "stream-invalid",
          `RAM block ${block.name} has ${block.byteLength} bytes, not a multiple of ${PAGE_SIZE}`,
        );
      const pageCount = block.byteLength / PAGE_SIZE;
      laid.push({ name: block.name, byteLength: block.byteLength, firstPage, pageCount });
      firstPage += pageCount;
      if (firstPage > MAX_PAGES)
        throw new MigrationFault("not-supported", `The guest has more than ${MAX_PAGES} pages of memory (1 TiB)`);
    }
    this.blocks = laid;
    this.pageCount = firstPage;
    this.byteLength = firstPage * PAGE_SIZE;
  }

  /** Names the page at an offset in a block. @throws RangeError when the offset is not inside the block */
  pageAt(block: LaidBlock, byteOffset: number): PageIndex {
    if (byteOffset < 0 || byteOffset >= block.byteLength) throw new RangeError(`offset ${byteOffset} of ${block.name}`);
    return pageIndex(block.firstPage + Math.floor(byteOffset / 2 ** PAGE_SHIFT));
  }
}
