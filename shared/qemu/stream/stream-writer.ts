/**
 * Writes RAM sections of QEMU's stream into a window of memory, as the inverse of stream-reader.ts. Pages are copied
 * within that memory, and no object is made for a page (migration/ram.c save_page_header, save_xbzrle_page).
 */
import { PAGE_SIZE } from "../../units.ts";
import { BlockTable, holds, type TableBlock } from "./block-table.ts";
import * as ram from "./ram-section.ts";

/** Encodes RAM's last section with nothing in it: every page was written before. */
export function encodeRamEnd(sectionId: number): Uint8Array {
  const bytes = new Uint8Array(18);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, ram.SECTION_END);
  view.setUint32(1, sectionId);
  view.setUint32(9, ram.RAM_EOS);
  view.setUint8(13, ram.SECTION_FOOTER);
  view.setUint32(14, sectionId);
  return bytes;
}

/**
 * Encodes the beginning of a stream: header, configuration, `commands`, and RAM's START section with its blocks
 * (migration/savevm.c qemu_savevm_state_header, migration/ram.c ram_save_setup).
 */
export function encodeStreamStart(
  machine: string,
  blocks: readonly { readonly name: string; readonly byteLength: number }[],
  sectionId: number,
  commands: Uint8Array,
): Uint8Array[] {
  const named = (text: string): Buffer => Buffer.concat([Uint8Array.of(text.length), Buffer.from(text, "latin1")]);
  const words = (...values: number[]): Buffer => {
    const bytes = Buffer.alloc(4 * values.length);
    for (const [index, value] of values.entries()) bytes.writeUInt32BE(value >>> 0, 4 * index);
    return bytes;
  };
  const long = (value: number): Buffer => words(Math.floor(value / 2 ** 32), value % 2 ** 32);
  const total = blocks.reduce((sum, { byteLength }) => sum + byteLength, 0);
  return [
    words(ram.FILE_MAGIC, ram.FILE_VERSION),
    Uint8Array.of(ram.CONFIGURATION),
    words(machine.length),
    Buffer.from(machine, "latin1"),
    commands,
    Uint8Array.of(ram.SECTION_START),
    words(sectionId),
    named("ram"),
    words(0, ram.RAM_VERSION),
    long(total + ram.RAM_MEM_SIZE),
    ...blocks.flatMap(({ name, byteLength }) => [named(name), long(byteLength)]),
    long(ram.RAM_EOS),
    Uint8Array.of(ram.SECTION_FOOTER),
    words(sectionId),
  ];
}

export class StreamWriter {
  /** The address of the next byte. */
  position = 0;
  private readonly memory: Uint8Array;
  private readonly view: DataView;
  private readonly copy: (to: number, from: number, length: number) => void;
  private limit = 0;
  private blocks = new BlockTable([]);
  private block: TableBlock | undefined;

  /**
   * @param copy copies within the memory; the ranges do not overlap. It is handed in because copyWithin() is several
   *   times slower on shared memory
   */
  constructor(memory: Uint8Array, copy: (to: number, from: number, length: number) => void) {
    this.memory = memory;
    this.copy = copy;
    this.view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
  }

  /** Takes the blocks, in the order of the stream, in which pages are numbered. */
  layout(blocks: readonly { readonly name: string; readonly byteLength: number }[]): void {
    this.blocks = new BlockTable(blocks);
    this.block = undefined;
  }

  /**
   * Writes to [start, limit) from now on. The first record continues the block of the last record of the window before.
   */
  begin(start: number, limit: number): void {
    this.position = start;
    this.limit = limit;
  }

  room(bytes: number): boolean {
    return this.limit - this.position >= bytes;
  }

  partStart(sectionId: number): void {
    this.sectionHead(ram.SECTION_PART, sectionId);
  }

  /** Begins RAM's last section. */
  endStart(sectionId: number): void {
    this.sectionHead(ram.SECTION_END, sectionId);
  }

  /** Ends the section that was begun. */
  partEnd(sectionId: number): void {
    this.view.setUint32(this.position, 0);
    this.view.setUint32(this.position + 4, ram.RAM_EOS);
    this.view.setUint8(this.position + 8, ram.SECTION_FOOTER);
    this.view.setUint32(this.position + 9, sectionId);
    this.position += 13;
  }

  zeroPage(page: number): void {
    this.record(page, ram.RAM_ZERO);
    this.memory[this.position++] = 0;
  }

  /** Writes a page whose content is at `at` in the same memory. */
  page(page: number, at: number): void {
    this.record(page, ram.RAM_PAGE);
    this.copy(this.position, at, PAGE_SIZE);
    this.position += PAGE_SIZE;
  }

  /** Writes a page as XBZRLE: `length` bytes that are at `at` in the same memory. */
  delta(page: number, at: number, length: number): void {
    this.record(page, ram.RAM_XBZRLE);
    this.view.setUint8(this.position, ram.ENCODING_XBZRLE);
    this.view.setUint16(this.position + 1, length);
    this.copy(this.position + 3, at, length);
    this.position += 3 + length;
  }

  verbatim(at: number, length: number): void {
    this.copy(this.position, at, length);
    this.position += length;
  }

  /** Writes bytes that are in other memory. @returns how many */
  bytes(piece: Uint8Array): number {
    this.memory.set(piece, this.position);
    this.position += piece.length;
    return piece.length;
  }

  private sectionHead(type: number, sectionId: number): void {
    this.view.setUint8(this.position, type);
    this.view.setUint32(this.position + 1, sectionId);
    this.position += 5;
  }

  private record(page: number, flag: number): void {
    const present = this.block;
    const same = holds(present, page);
    const block = same ? present : this.blocks.find(page);
    const offset = (page - block.firstPage) * PAGE_SIZE;
    this.view.setUint32(this.position, Math.floor(offset / 2 ** 32));
    this.view.setUint32(this.position + 4, (offset % 2 ** 32) + flag + (same ? ram.RAM_CONTINUE : 0));
    this.position += 8;
    if (same) return;
    this.memory[this.position] = block.name.length;
    this.memory.set(block.name, this.position + 1);
    this.position += 1 + block.name.length;
    this.block = block;
  }
}
