/**
 * The guest's memory as numbered pages: RAM blocks in the order of the stream, one after the other without gaps.
 *
 *     block     pc.ram              pc.bios   /rom@etc/acpi/tables
 *     pages     0 ........ 131071   131072 …  131136 …
 *
 * A number says nothing of guest-physical addresses: QEMU's stream names a page by block and offset.
 */
import { MigrationFault } from "../fault.ts";
import { PAGE_SHIFT, PAGE_SIZE, type PageIndex, pageIndex } from "../units.ts";

/** A block of guest memory as the stream lists it; lengths in bytes. */
export interface BlockSize {
  readonly name: string;
  readonly byteLength: number;
}

/** A block with its place in the numbering. */
export interface LaidBlock extends BlockSize {
  readonly firstPage: number;
  readonly pageCount: number;
}

/**
 * Page numbers travel as zigzag varints with two bits of kind in 32 bits (shared/codec/page-frame.ts),
 * which leaves 28 bits: 1 TiB of guest memory.
 */
export const MAX_PAGES = 2 ** 28;

export class MemoryLayout {
  readonly blocks: readonly LaidBlock[];
  readonly pageCount: number;
  readonly byteLength: number;

  /** @throws MigrationFault `not-supported` for memory beyond MAX_PAGES, `stream-invalid` for odd sizes */
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

  /** The block of a page; for messages and reports, not for the hot path. */
  blockOf(page: PageIndex): LaidBlock {
    const block = this.blocks.find((one) => page >= one.firstPage && page < one.firstPage + one.pageCount);
    if (block === undefined) throw new RangeError(`page ${page} of ${this.pageCount}`);
    return block;
  }

  /** @throws RangeError when the offset is not inside the block */
  pageAt(block: LaidBlock, byteOffset: number): PageIndex {
    if (byteOffset < 0 || byteOffset >= block.byteLength) throw new RangeError(`offset ${byteOffset} of ${block.name}`);
    return pageIndex(block.firstPage + Math.floor(byteOffset / 2 ** PAGE_SHIFT));
  }
}
