/** RAM blocks as the code that writes to QEMU needs them: found by a page, and with the bytes of their names. */
import { PAGE_SIZE } from "../../units.ts";

/** A block, which has the pages [firstPage, endPage). */
export interface TableBlock {
  /** The bytes of the name, without its length before them and without a zero after them. */
  readonly name: Uint8Array;
  readonly firstPage: number;
  readonly endPage: number;
}

export class BlockTable {
  private readonly blocks: readonly TableBlock[];

  /** @param blocks in the order of the stream, in which pages are numbered */
  constructor(blocks: readonly { readonly name: string; readonly byteLength: number }[]) {
    let endPage = 0;
    this.blocks = blocks.map(({ name, byteLength }) => {
      const firstPage = endPage;
      endPage += byteLength / PAGE_SIZE;
      return { name: Buffer.from(name, "latin1"), firstPage, endPage };
    });
  }

  /** Finds the block of a page. @throws RangeError when the page is in no block */
  find(page: number): TableBlock {
    const block = this.blocks.find((one) => page >= one.firstPage && page < one.endPage);
    if (block === undefined) throw new RangeError(`page ${page} is in no RAM block`);
    return block;
  }
}

/** Tells whether the page is in the block. */
export const holds = (block: TableBlock | undefined, page: number): block is TableBlock =>
  block !== undefined && page >= block.firstPage && page < block.endPage;

/** Writes a number below 2^53 as a be64. */
export function putUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 2 ** 32));
  view.setUint32(at + 4, value % 2 ** 32);
}
