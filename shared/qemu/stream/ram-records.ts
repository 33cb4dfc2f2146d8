/**
 * Reads the RAM sections of QEMU's stream, of a stream with a header as well as of a resumed one:
 *
 *     02 PART or 03 END | be32 id | record* | be64 10 (end of section) | 7e | be32 id
 *
 * (migration/ram.c, also ram_load_postcopy.) The sink gets the address of a page: nothing is copied, and no object is
 * made for a page. The caller knows when a section is due.
 */
import { PAGE_SIZE } from "../../units.ts";
import type { RamBlocks } from "./ram-blocks.ts";
import * as ram from "./ram-section.ts";
import type { StreamCursor } from "./stream-cursor.ts";

/** Takes pages. Addresses are in the reader's memory, and valid until the call returns. */
export interface RecordSink {
  /**
   * Takes a page, whose content is at `at`.
   * @returns false when the page is not taken: the reader stops, and offers the page again at the next consume()
   */
  page(page: number, at: number): boolean;
  /** Takes a page that is all zero. @returns as page() does */
  zeroPage(page: number): boolean;
}

/** Takes pages, and what comes between them and after them. */
export interface PageSink extends RecordSink {
  /** A RAM section has ended. @returns false to stop the reader before the next section */
  partEnd(): boolean;
  /** Every page was delivered. */
  ramEnd(): void;
  /** The last byte of the stream was delivered. */
  end(): void;
}

export class RamRecords {
  private readonly cursor: StreamCursor;
  private readonly blocks: RamBlocks;
  /** Takes the pages. */
  sink: RecordSink;

  /** @param blocks the RAM blocks; they may be added later, before the first record is read */
  constructor(cursor: StreamCursor, blocks: RamBlocks, sink: RecordSink) {
    this.cursor = cursor;
    this.blocks = blocks;
    this.sink = sink;
  }

  /** Moves the cursor past the head of a section. @returns false when the head is not all there */
  head(sectionId: number): boolean {
    const { cursor } = this;
    if (!cursor.has(5)) return false;
    const id = cursor.view.getUint32(cursor.at + 1);
    if (id !== sectionId) throw cursor.invalid(`a part of section ${id}, which did not start`);
    cursor.at += 5;
    return true;
  }

  /**
   * Reads record after record; this is the hot path.
   * @returns `ended` at the end of the section, `short` at the end of the bytes that are there, `refused` when the sink
   *   has not taken a page
   */
  read(): "ended" | "short" | "refused" {
    const { cursor, sink, blocks } = this;
    const { memory, view, limit } = cursor;
    while (limit - cursor.at >= 8) {
      const at = cursor.at;
      const low = view.getUint32(at + 4);
      const kind = low & ram.RAM_FLAGS & ~ram.RAM_CONTINUE;
      if (kind !== ram.RAM_PAGE && kind !== ram.RAM_ZERO) {
        this.end(low);
        return "ended";
      }
      let body = at + 8;
      if ((low & ram.RAM_CONTINUE) === 0) {
        if (limit - body < 1 || limit - body < 1 + memory[body]!) return "short";
        const length = memory[body]!;
        if (!blocks.choose(memory, body + 1, length))
          throw cursor.invalid(`a page of RAM block ${cursor.text(body + 1, length)}, which was not listed`);
        body += 1 + length;
      }
      const offset = view.getUint32(at) * 2 ** 32 + ((low & ~ram.RAM_FLAGS) >>> 0);
      const page = blocks.pageAt(offset);
      if (page < 0) throw cursor.invalid(blocks.whyNone(offset));
      if (kind === ram.RAM_PAGE) {
        if (limit - body < PAGE_SIZE) return "short";
        if (!sink.page(page, body)) return "refused";
        cursor.at = body + PAGE_SIZE;
      } else {
        if (limit - body < 1) return "short";
        if (memory[body] !== 0) throw cursor.unsupported(`a page filled with ${memory[body]}`);
        if (!sink.zeroPage(page)) return "refused";
        cursor.at = body + 1;
      }
    }
    return "short";
  }

  /** Reads a record that is no page: the end of the section, or something that is refused. */
  private end(low: number): void {
    const { cursor } = this;
    const flags = low & ram.RAM_FLAGS;
    if (flags !== ram.RAM_EOS) throw cursor.unsupported(`${ram.flagName(flags)} in RAM`);
    if (cursor.uint64(cursor.at) !== ram.RAM_EOS) throw cursor.invalid("an end of section with an offset");
    cursor.at += 8;
  }
}

/** Checks that the 5 bytes at `at` end the section with this id. */
export function checkFooter(cursor: StreamCursor, at: number, sectionId: number): void {
  if (cursor.memory[at] !== ram.SECTION_FOOTER) throw cursor.unsupported("no section footer (send-section-footer=off)");
  const id = cursor.view.getUint32(at + 1);
  if (id !== sectionId) throw cursor.invalid(`a footer of section ${id} in section ${sectionId}`);
}
