/**
 * Reads the RAM sections of QEMU's stream, in one with a header as in one that was resumed:
 *
 *     02 PART or 03 END | be32 id | record* | be64 10 (end of section) | 7e | be32 id      (migration/ram.c, ram_load_postcopy too)
 *
 * Pages are told by their address, nothing is copied or made for them. When a section is due is its caller's to know.
 */
import { PAGE_SIZE } from "../../units.ts";
import type { RamBlocks } from "./ram-blocks.ts";
import * as ram from "./ram-section.ts";
import type { StreamCursor } from "./stream-cursor.ts";

/** Takes pages. Addresses are in the reader's memory, and valid until the call returns. */
export interface RecordSink {
  /** A page's content is at `at`. False: not taken; the reader stops, and offers it again at the next consume(). */
  page(page: number, at: number): boolean;
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

  /** @param blocks may be filled later, ahead of the first record */
  constructor(cursor: StreamCursor, blocks: RamBlocks, sink: RecordSink) {
    this.cursor = cursor;
    this.blocks = blocks;
    this.sink = sink;
  }

  /** Moves behind the section's head, if it is all there. @returns was it? */
  head(sectionId: number): boolean {
    const { cursor } = this;
    if (!cursor.has(5)) return false;
    const id = cursor.view.getUint32(cursor.at + 1);
    if (id !== sectionId) throw cursor.invalid(`a part of section ${id}, which did not start`);
    cursor.at += 5;
    return true;
  }

  /** The hot path: record after record until the section's end, the end of what is there, or a sink that is full. */
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

  /** What is no page: the section's end, or something that is refused. */
  private end(low: number): void {
    const { cursor } = this;
    const flags = low & ram.RAM_FLAGS;
    if (flags !== ram.RAM_EOS) throw cursor.unsupported(`${ram.flagName(flags)} in RAM`);
    if (cursor.uint64(cursor.at) !== ram.RAM_EOS) throw cursor.invalid("an end of section with an offset");
    cursor.at += 8;
  }
}

/** The 5 bytes at `at` end a section with that id. */
export function checkFooter(cursor: StreamCursor, at: number, sectionId: number): void {
  if (cursor.memory[at] !== ram.SECTION_FOOTER) throw cursor.unsupported("no section footer (send-section-footer=off)");
  const id = cursor.view.getUint32(at + 1);
  if (id !== sectionId) throw cursor.invalid(`a footer of section ${id} in section ${sectionId}`);
}
