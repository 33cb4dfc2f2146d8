/**
 * The RAM blocks of a stream, and the current block: a record names its block only when the record before was of
 * another block (RAM_SAVE_FLAG_CONTINUE, migration/ram.c ram_block_from_stream). Pages are numbered across all blocks.
 */
import { PAGE_SIZE } from "../../units.ts";

/** A RAM block as the stream and QEMU's monitor list it. Lengths are in bytes. */
export interface RamBlock {
  readonly name: string;
  readonly byteLength: number;
  readonly pageSize: number;
}

/** A RAM block with the number of its first page. */
export interface PlacedBlock extends RamBlock {
  readonly firstPage: number;
}

export class RamBlocks {
  private readonly list: PlacedBlock[] = [];
  private readonly byName = new Map<string, PlacedBlock>();
  private current: PlacedBlock | undefined;
  /** The sum of the blocks' lengths. */
  byteLength = 0;

  get blocks(): readonly RamBlock[] {
    return this.list.map(({ name, byteLength, pageSize }) => ({ name, byteLength, pageSize }));
  }

  get count(): number {
    return this.list.length;
  }

  has(name: string): boolean {
    return this.byName.has(name);
  }

  named(name: string): PlacedBlock | undefined {
    return this.byName.get(name);
  }

  add(name: string, byteLength: number): void {
    const block = { name, byteLength, pageSize: PAGE_SIZE, firstPage: this.byteLength / PAGE_SIZE };
    this.list.push(block);
    this.byName.set(name, block);
    this.byteLength += byteLength;
  }

  /**
   * Makes a block the current block. Its name is the `length` bytes of the memory from `at` on.
   * @returns false when no block has that name
   */
  choose(memory: Uint8Array, at: number, length: number): boolean {
    const present = this.current;
    // mostly the name is that of the current block again, and comparing its bytes makes no string
    if (present !== undefined && present.name.length === length) {
      let same = true;
      for (let i = 0; i < length && same; i++) same = memory[at + i] === present.name.charCodeAt(i);
      if (same) return true;
    }
    const found = this.byName.get(Buffer.from(memory.buffer, memory.byteOffset + at, length).toString("latin1"));
    if (found !== undefined) this.current = found;
    return found !== undefined;
  }

  /** @returns the number of the page at this offset of the current block; -1 when the block does not have it */
  pageAt(offset: number): number {
    const block = this.current;
    return block === undefined || offset >= block.byteLength ? -1 : block.firstPage + offset / PAGE_SIZE;
  }

  /**
   * @param block the current block when left out
   * @returns the number of the first page of [start, start + byteLength); -1 when that range is not made of whole pages
   *   of the block
   */
  rangeAt(start: number, byteLength: number, block: PlacedBlock | undefined = this.current): number {
    if (block === undefined || byteLength === 0 || start + byteLength > block.byteLength) return -1;
    return start % PAGE_SIZE === 0 && byteLength % PAGE_SIZE === 0 ? block.firstPage + start / PAGE_SIZE : -1;
  }

  /** Describes, for an error message, a range for which rangeAt() has returned -1 and not the number of a page. */
  whyNoRange(start: number, byteLength: number, block: PlacedBlock | undefined = this.current): string {
    if (block === undefined) return "pages without a RAM block";
    return `${byteLength} bytes at offset ${start} of RAM block ${block.name}, which has ${block.byteLength}`;
  }

  /** Describes, for an error message, an offset for which pageAt() has returned -1 and not the number of a page. */
  whyNone(offset: number): string {
    const block = this.current;
    if (block === undefined) return "a page without a RAM block";
    return `a page at offset ${offset} in RAM block ${block.name} of ${block.byteLength} bytes`;
  }
}
