/**
 * Reads QEMU's stream incrementally, in place: pages are told by their address, nothing is copied or made for them.
 *
 *     header | configuration | [commands] | START(ram) … PART(ram)* … END(ram) | devices … description
 *     └────────── prologue, verbatim ───────────────┘   pages          └── opaque, verbatim ──┘
 *
 *     … RAM_DISCARD* PING | PACKAGED(length) … | PING PART(ram)* END(ram) EOF      post-copy, where there is a sink for it
 *                           └ device state ┘     pages, final
 *
 * Read for QEMU 8.1 to 10.x, x86, 4 KiB pages (migration/savevm.c, migration/ram.c). What the stream may hold beyond
 * that is refused by name. Not its job: whether the machine fits the destination.
 *
 * Invariant: writing what was read gives the same bytes (stream-writer.ts), less the commands, which are for the agents.
 */
import { PAGE_SIZE } from "../units.ts";
import type { RamBlocks } from "./ram-blocks.ts";
import * as ram from "./ram-section.ts";
import { type PostcopySink, STOPPED_COMMANDS, StreamCommands } from "./stream-commands.ts";
import { StreamCursor } from "./stream-cursor.ts";
import { StreamEnd } from "./stream-end.ts";
import { type RamSetup, type StreamLimits, StreamSetup } from "./stream-setup.ts";

export type { PostcopySink } from "./stream-commands.ts";
export type { RamSetup } from "./stream-setup.ts";

/** Takes what is read. Ranges [start, end) and addresses are in the reader's memory, valid until the call returns. */
export interface StreamSink {
  /** Bytes that the destination QEMU needs before any page, in consecutive pieces. */
  prologue(start: number, end: number): void;
  /** After the last piece of the prologue. */
  layout(setup: RamSetup): void;
  /** A page's content is at `at`. False: not taken; the reader stops, and offers it again at the next consume(). */
  page(page: number, at: number): boolean;
  zeroPage(page: number): boolean;
  /** A RAM section ended. False: the reader stops behind it. */
  partEnd(): boolean;
  /** The first byte that QEMU made with the guest stopped; once. */
  stopped(): void;
  /** Every page was delivered. */
  ramEnd(): void;
  /** Opaque bytes behind RAM's last section (which encodeRamEnd() of stream-writer.ts stands for); in any pieces. */
  device(start: number, end: number): void;
  /** The last byte was delivered. */
  end(): void;
}

type State =
  | "header"
  | "configuration"
  | "sections"
  | "blocks"
  | "records"
  | "footer"
  | "package"
  | "devices"
  | "eof"
  | "finished";

/** An item is at most a RAM record with a block name and a page; the list of blocks is read block by block. */
const ITEM_BYTES_MAX = 8 + 256 + PAGE_SIZE;

export class StreamReader {
  /** Most bytes that must be there at once for consume() to get on. */
  readonly needs = ITEM_BYTES_MAX;
  /** Did the sink stop the reader in the last consume()? */
  stopped = false;
  private readonly sink: StreamSink;
  private readonly cursor: StreamCursor;
  private readonly setup: StreamSetup;
  private readonly commands: StreamCommands;
  private readonly ramBlocks: RamBlocks;
  private readonly end = new StreamEnd();
  private state: State = "header";
  /** Address of the prologue's first byte that was not passed on; -1 when all of it was. */
  private prologueFrom = 0;
  private sectionKind = 0;
  private guestStopped = false;

  /** @param postcopy without it, a stream with the capability postcopy-ram is refused */
  constructor(memory: Uint8Array, sink: StreamSink, limits: StreamLimits = {}, postcopy?: PostcopySink) {
    this.sink = sink;
    this.cursor = new StreamCursor(memory);
    this.setup = new StreamSetup(this.cursor, limits);
    this.commands = new StreamCommands(this.cursor, this.setup, limits, postcopy);
    this.ramBlocks = this.setup.ramBlocks;
  }

  /** Bytes of the stream that were consumed. */
  get position(): number {
    return this.cursor.position;
  }

  /**
   * Reads complete items of [start, end).
   * @returns the address of the first byte that was not consumed; it may be moved before the next call
   * @throws MigrationFault `stream-invalid`, `stream-unsupported`
   */
  consume(start: number, end: number): number {
    const { cursor } = this;
    cursor.enter(start, end);
    if (this.prologueFrom >= 0) this.prologueFrom = start;
    this.stopped = false;
    while (!this.stopped && this.step());
    this.flushPrologue();
    return cursor.at;
  }

  /** @returns may there be more to consume? */
  private step(): boolean {
    switch (this.state) {
      case "records":
        return this.records();
      case "header":
        return this.setup.header() && this.go("configuration");
      case "configuration":
        return this.setup.configuration() && this.go("sections");
      case "sections":
        return this.section();
      case "blocks":
        if (!this.setup.isComplete) return this.setup.block();
        return this.setup.sectionStartEnd() && this.layout();
      case "footer":
        return this.footer();
      case "package":
        return this.commands.packageBytes() && this.go(this.commands.inPackage ? "package" : "sections");
      case "devices":
        return this.devices();
      case "eof":
        return this.postcopyEnd();
      case "finished":
        if (this.cursor.has(1)) throw this.cursor.invalid("bytes after its end");
        return false;
    }
  }

  private go(state: State): true {
    this.state = state;
    return true;
  }

  private section(): boolean {
    const { cursor } = this;
    if (!cursor.has(1)) return false;
    const type = cursor.memory[cursor.at]!;
    switch (type) {
      case ram.COMMAND:
        return this.command();
      case ram.SUBSECTION:
        return this.setup.subsection();
      case ram.SECTION_START:
        return this.setup.sectionStart() && this.go("blocks");
      case ram.SECTION_PART:
      case ram.SECTION_END:
        return this.sectionPart(type);
      case ram.SECTION_FULL: {
        const id = cursor.name(cursor.at + 5);
        if (id === undefined) return false;
        throw cursor.unsupported(`section ${id} before the end of RAM (virtio-mem has such)`);
      }
      default:
        throw cursor.invalid(`a section of type ${type} before the end of RAM`);
    }
  }

  /** Commands are no part of the prologue: the agents answer them, or write their own. */
  private command(): boolean {
    const { cursor, commands } = this;
    const command = commands.next();
    if (command < 0) return false;
    if (STOPPED_COMMANDS.includes(command)) this.guestIsStopped();
    this.flushPrologue();
    commands.take(command);
    if (this.prologueFrom >= 0) this.prologueFrom = cursor.at;
    return this.go(commands.inPackage ? "package" : "sections");
  }

  private layout(): true {
    this.flushPrologue();
    this.prologueFrom = -1;
    this.state = "sections";
    this.sink.layout(this.setup.result);
    return true;
  }

  private sectionPart(type: number): boolean {
    const { cursor } = this;
    if (!cursor.has(5)) return false;
    const id = cursor.view.getUint32(cursor.at + 1);
    if (id !== this.setup.ramSectionId) throw cursor.invalid(`a part of section ${id}, which did not start`);
    if (type === ram.SECTION_END) this.guestIsStopped();
    this.sectionKind = type;
    cursor.at += 5;
    return this.go("records");
  }

  /** The hot path: record after record until the section's end, the end of what is there, or a sink that is full. */
  private records(): boolean {
    const { cursor, sink } = this;
    const { memory, view, limit } = cursor;
    while (limit - cursor.at >= 8) {
      const at = cursor.at;
      const low = view.getUint32(at + 4);
      const kind = low & ram.RAM_FLAGS & ~ram.RAM_CONTINUE;
      if (kind !== ram.RAM_PAGE && kind !== ram.RAM_ZERO) return this.recordsEnd(low);
      let body = at + 8;
      if ((low & ram.RAM_CONTINUE) === 0) {
        if (limit - body < 1 || limit - body < 1 + memory[body]!) return false;
        const length = memory[body]!;
        if (!this.ramBlocks.choose(memory, body + 1, length))
          throw cursor.invalid(`a page of RAM block ${cursor.text(body + 1, length)}, which was not listed`);
        body += 1 + length;
      }
      const offset = view.getUint32(at) * 2 ** 32 + ((low & ~ram.RAM_FLAGS) >>> 0);
      const page = this.ramBlocks.pageAt(offset);
      if (page < 0) throw cursor.invalid(this.ramBlocks.whyNone(offset));
      if (kind === ram.RAM_PAGE) {
        if (limit - body < PAGE_SIZE) return false;
        if (!sink.page(page, body)) return this.stop();
        cursor.at = body + PAGE_SIZE;
      } else {
        if (limit - body < 1) return false;
        if (memory[body] !== 0) throw cursor.unsupported(`a page filled with ${memory[body]}`);
        if (!sink.zeroPage(page)) return this.stop();
        cursor.at = body + 1;
      }
    }
    return false;
  }

  /** What is no page: the section's end, or something that is refused. */
  private recordsEnd(low: number): boolean {
    const { cursor } = this;
    const flags = low & ram.RAM_FLAGS;
    if (flags !== ram.RAM_EOS) throw cursor.unsupported(`${ram.flagName(flags)} in RAM`);
    if (cursor.uint64(cursor.at) !== ram.RAM_EOS) throw cursor.invalid("an end of section with an offset");
    cursor.at += 8;
    return this.go("footer");
  }

  private footer(): boolean {
    const { cursor } = this;
    if (!cursor.has(5)) return false;
    this.setup.checkFooter(cursor.at);
    cursor.at += 5;
    if (this.sectionKind === ram.SECTION_END) {
      this.state = this.commands.isPostcopy ? "eof" : "devices";
      this.sink.ramEnd();
      return true;
    }
    this.state = "sections";
    if (!this.sink.partEnd()) this.stop();
    return true;
  }

  private devices(): boolean {
    const { at, limit, memory } = this.cursor;
    if (at === limit) return false;
    const complete = this.end.push(memory.subarray(at, limit));
    this.sink.device(at, limit);
    this.cursor.at = limit;
    if (complete) {
      this.state = "finished";
      this.sink.end();
    }
    return true;
  }

  /** Post-copy's devices are in the package, so RAM is the last; there is no description. */
  private postcopyEnd(): boolean {
    const { cursor } = this;
    if (!cursor.has(1)) return false;
    const type = cursor.memory[cursor.at];
    if (type !== ram.EOF) throw cursor.invalid(`a section of type ${type} after the end of RAM in post-copy`);
    cursor.at += 1;
    this.state = "finished";
    this.sink.end();
    return true;
  }

  private guestIsStopped(): void {
    if (this.guestStopped) return;
    this.guestStopped = true;
    this.sink.stopped();
  }

  private stop(): false {
    this.stopped = true;
    return false;
  }

  private flushPrologue(): void {
    const { at } = this.cursor;
    if (this.prologueFrom < 0 || at === this.prologueFrom) return;
    this.sink.prologue(this.prologueFrom, at);
    this.prologueFrom = at;
  }
}
