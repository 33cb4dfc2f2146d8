/**
 * Reads QEMU's stream in place, in whatever pieces it comes. The sink gets the address of a page: nothing is copied,
 * and no object is made for a page.
 *
 *     header | configuration | [commands] | START(ram) … PART(ram)* … END(ram) | devices … description
 *     └────────── prologue, verbatim ───────────────┘   pages          └── opaque, verbatim ──┘
 *
 * Post-copy, where there is a sink for it:
 *
 *     … RAM_DISCARD* PING | PACKAGED(length) … | PING PART(ram)* END(ram) EOF
 *                           └ device state ┘     pages, final
 *
 * The format was read in the source of QEMU 8.1 to 10.x, for x86 and pages of 4 KiB (migration/savevm.c,
 * migration/ram.c). Anything else that a stream may hold is refused with a fault that names it. The reader does not
 * check whether the machine fits the destination.
 *
 * Invariant: when stream-writer.ts writes what was read, it gives the same bytes. Only the commands are left out, which
 * are meant for the agents.
 */
import { PAGE_SIZE } from "../../units.ts";
import { checkFooter, type PageSink, RamRecords } from "./ram-records.ts";
import * as ram from "./ram-section.ts";
import { type PostcopySink, STOPPED_COMMANDS, StreamCommands } from "./stream-commands.ts";
import { StreamCursor } from "./stream-cursor.ts";
import { StreamEnd } from "./stream-end.ts";
import { type RamSetup, type StreamLimits, StreamSetup } from "./stream-setup.ts";

export type { PageSink } from "./ram-records.ts";
export type { PostcopySink } from "./stream-commands.ts";
export type { RamSetup } from "./stream-setup.ts";

/** Takes what is read. Ranges [start, end) and addresses are in the reader's memory, valid until the call returns. */
export interface StreamSink extends PageSink {
  /** Takes bytes that the destination's QEMU needs before any page, in consecutive pieces. */
  prologue(start: number, end: number): void;
  /** Takes what the set-up says of the RAM, after the last piece of the prologue. */
  layout(setup: RamSetup): void;
  /** Called once, at the first item that QEMU made with the guest stopped. */
  stopped(): void;
  /**
   * Takes opaque bytes that follow RAM's last section, in any pieces. The section itself is not among them; the code
   * that writes the stream uses encodeRamEnd() of stream-writer.ts for it.
   */
  device(start: number, end: number): void;
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

/**
 * The most bytes of an item: a RAM record with a block's name and a page. The list of blocks is read block by block.
 */
const ITEM_BYTES_MAX = 8 + 256 + PAGE_SIZE;

export class StreamReader {
  /** The most bytes that consume() may need at once to make progress. */
  readonly needs = ITEM_BYTES_MAX;
  /** True when the sink has stopped the reader in the last consume(). */
  stopped = false;
  private readonly sink: StreamSink;
  /** Takes the pages and the end of the stream: the sink, or after a package the sink of PostcopySink.packageEnd(). */
  private pages: PageSink;
  private readonly cursor: StreamCursor;
  private readonly setup: StreamSetup;
  private readonly commands: StreamCommands;
  private readonly records: RamRecords;
  private readonly end = new StreamEnd();
  private state: State = "header";
  /** Address of the prologue's first byte that was not passed on; -1 when all of it was. */
  private prologueFrom = 0;
  private sectionKind = 0;
  private guestStopped = false;

  /** @param postcopy without it, a stream with the capability postcopy-ram is refused */
  constructor(memory: Uint8Array, sink: StreamSink, limits: StreamLimits = {}, postcopy?: PostcopySink) {
    this.sink = sink;
    this.pages = sink;
    this.cursor = new StreamCursor(memory);
    this.setup = new StreamSetup(this.cursor, limits);
    this.commands = new StreamCommands(this.cursor, this.setup, limits, postcopy);
    this.records = new RamRecords(this.cursor, this.setup.ramBlocks, sink);
  }

  /** How many bytes of the stream were consumed. */
  get position(): number {
    return this.cursor.position;
  }

  /**
   * Reads complete items of [start, end).
   * @returns the address of the first byte that was not consumed; the rest may be moved before the next call
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

  /** @returns true when there may be more to consume */
  private step(): boolean {
    switch (this.state) {
      case "records":
        return this.read();
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
        return this.package();
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
        throw cursor.unsupported(`section ${id} before the end of RAM (virtio-mem sends such a section)`);
      }
      default:
        throw cursor.invalid(`a section of type ${type} before the end of RAM`);
    }
  }

  /** Reads a command. Commands are no part of the prologue: the agents answer them, or write commands of their own. */
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

  private package(): boolean {
    if (!this.commands.packageBytes()) return false;
    if (this.commands.inPackage) return true;
    this.pages = this.commands.nextSink ?? this.sink;
    this.records.sink = this.pages;
    return this.go("sections");
  }

  private layout(): true {
    this.flushPrologue();
    this.prologueFrom = -1;
    this.state = "sections";
    this.sink.layout(this.setup.result);
    return true;
  }

  private sectionPart(type: number): boolean {
    if (!this.records.head(this.setup.ramSectionId)) return false;
    if (type === ram.SECTION_END) this.guestIsStopped();
    this.sectionKind = type;
    return this.go("records");
  }

  private read(): boolean {
    switch (this.records.read()) {
      case "ended":
        return this.go("footer");
      case "refused":
        return this.stop();
      case "short":
        return false;
    }
  }

  private footer(): boolean {
    const { cursor } = this;
    if (!cursor.has(5)) return false;
    checkFooter(cursor, cursor.at, this.setup.ramSectionId);
    cursor.at += 5;
    if (this.sectionKind === ram.SECTION_END) {
      this.state = this.commands.isPostcopy ? "eof" : "devices";
      this.pages.ramEnd();
      return true;
    }
    this.state = "sections";
    if (!this.pages.partEnd()) this.stop();
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

  /** Reads the end of post-copy. The devices are in the package, so RAM comes last, and there is no description. */
  private postcopyEnd(): boolean {
    const { cursor } = this;
    if (!cursor.has(1)) return false;
    const type = cursor.memory[cursor.at];
    if (type !== ram.EOF) throw cursor.invalid(`a section of type ${type} after the end of RAM in post-copy`);
    cursor.at += 1;
    this.state = "finished";
    this.pages.end();
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
