/**
 * Reads what the source's QEMU writes on a new connection after a broken post-copy (`migrate` with resume). It reads in
 * place, as stream-reader.ts does. The stream has no header:
 *
 *     RECV_BITMAP(block) for each block | RESUME | PART(ram)* END(ram) EOF
 *          answered on the return path      answered by RESUME_ACK, without which no page comes
 *
 * (migration/ram.c ram_dirty_bitmap_sync_all, migration/migration.c postcopy_do_resume.) QEMU sends the pages that the
 * answers report as missing, whatever it sent before. Each page comes once, in no particular order, except that
 * requested pages come first.
 */
import { PAGE_SIZE } from "../../units.ts";
import { type PlacedBlock, RamBlocks } from "./ram-blocks.ts";
import { checkFooter, RamRecords, type RecordSink } from "./ram-records.ts";
import * as ram from "./ram-section.ts";
import { StreamCursor } from "./stream-cursor.ts";
import type { RamSetup } from "./stream-setup.ts";

/** Takes what is read, in the order of the stream. */
export interface ResumedSink extends RecordSink {
  /** QEMU asks for PONG(value) on its return path. */
  ping(value: number): void;
  /** QEMU asks which pages of the block the destination has, and waits for the answer. Called once for each block. */
  bitmapWanted(block: PlacedBlock): void;
  /** QEMU knows for every RAM block which pages the destination has, and waits for RESUME_ACK on its return path. */
  resumed(): void;
  /** A RAM section has ended. @returns false to stop the reader before the next section */
  partEnd(): boolean;
  /** Every page was delivered. */
  ramEnd(): void;
  /** The last byte of the stream was delivered. */
  end(): void;
}

type State = "asking" | "pages" | "records" | "footer" | "eof" | "finished";

/** Bytes of a command before its payload. */
const HEAD = 5;
/** The payload lengths of the commands whose length is fixed; the length of RECV_BITMAP varies. */
const LENGTHS: ReadonlyMap<number, number> = new Map([
  [ram.COMMANDS.ping, 4],
  [ram.COMMANDS.postcopyResume, 0],
]);

export class ResumedReader {
  /** The most bytes that consume() may need at once to make progress. */
  readonly needs = 8 + 256 + PAGE_SIZE;
  /** True when the sink has stopped the reader in the last consume(). */
  stopped = false;
  private readonly sink: ResumedSink;
  private readonly cursor: StreamCursor;
  private readonly sectionId: number;
  private readonly blocks = new RamBlocks();
  private readonly records: RamRecords;
  /** The names of the blocks whose bitmap QEMU has asked for. */
  private readonly asked = new Set<string>();
  private state: State = "asking";
  private sectionKind = 0;

  /** @param setup the RAM blocks and the RAM section of the stream that broke */
  constructor(memory: Uint8Array, setup: Pick<RamSetup, "ramSectionId" | "blocks">, sink: ResumedSink) {
    this.sink = sink;
    this.cursor = new StreamCursor(memory);
    this.sectionId = setup.ramSectionId;
    for (const { name, byteLength } of setup.blocks) this.blocks.add(name, byteLength);
    this.records = new RamRecords(this.cursor, this.blocks, sink);
  }

  /** How many bytes of this connection were consumed. */
  get position(): number {
    return this.cursor.position;
  }

  /**
   * Reads complete items of [start, end).
   * @returns the address of the first byte that was not consumed; the rest may be moved before the next call
   * @throws MigrationFault `stream-invalid`, `stream-unsupported`
   */
  consume(start: number, end: number): number {
    this.cursor.enter(start, end);
    this.stopped = false;
    while (!this.stopped && this.step());
    return this.cursor.at;
  }

  /** @returns true when there may be more to consume */
  private step(): boolean {
    const { cursor } = this;
    switch (this.state) {
      case "records":
        return this.read();
      case "footer":
        return this.footer();
      case "finished":
        if (cursor.has(1)) throw cursor.invalid("bytes after its end");
        return false;
      default:
        return cursor.has(1) && this.item(cursor.memory[cursor.at]!);
    }
  }

  /** Reads an item that begins with a byte for its type: a command, a section, or the end. */
  private item(type: number): boolean {
    const { cursor, state } = this;
    if (state !== "eof" && type === ram.COMMAND) return this.command();
    if (state === "pages" && (type === ram.SECTION_PART || type === ram.SECTION_END)) {
      if (!this.records.head(this.sectionId)) return false;
      this.sectionKind = type;
      this.state = "records";
      return true;
    }
    if (state !== "eof" || type !== ram.EOF)
      throw cursor.invalid(`a section of type ${type} in a resumed stream (${state})`);
    cursor.at += 1;
    this.state = "finished";
    this.sink.end();
    return true;
  }

  private command(): boolean {
    const { cursor } = this;
    if (!cursor.has(HEAD)) return false;
    const command = cursor.view.getUint16(cursor.at + 1);
    const length = cursor.view.getUint16(cursor.at + 3);
    const due = LENGTHS.get(command);
    if (due === undefined && command !== ram.COMMANDS.recvBitmap)
      throw cursor.unsupported(`command ${ram.commandName(command)} in a resumed stream`);
    if (due === undefined ? length < 1 || length > 256 : length !== due)
      throw cursor.invalid(`a command ${ram.commandName(command)} of ${length} bytes`);
    if (!cursor.has(HEAD + length)) return false;
    const body = cursor.at + HEAD;
    if (command === ram.COMMANDS.ping) this.sink.ping(cursor.view.getUint32(body));
    else if (command === ram.COMMANDS.recvBitmap) this.recvBitmap(body, length);
    else this.resume();
    cursor.at = body + length;
    return true;
  }

  private recvBitmap(at: number, length: number): void {
    const { cursor, state, asked } = this;
    if (state !== "asking") throw cursor.invalid("a command recvBitmap after postcopyResume");
    if (cursor.memory[at] !== length - 1) throw cursor.invalid(`a block's name of ${cursor.memory[at]} bytes`);
    const name = cursor.text(at + 1, length - 1);
    const block = this.blocks.named(name);
    if (block === undefined) throw cursor.invalid(`a command recvBitmap of RAM block ${name}, which was not listed`);
    if (asked.has(name)) throw cursor.invalid(`a second command recvBitmap of RAM block ${name}`);
    asked.add(name);
    this.sink.bitmapWanted(block);
  }

  private resume(): void {
    const { cursor, state, asked, blocks } = this;
    if (state !== "asking") throw cursor.invalid("a second command postcopyResume");
    // without an answer for every block QEMU would send the pages that it believes to be missing, and the destination
    // may miss other pages
    if (asked.size < blocks.count)
      throw cursor.invalid(`a command postcopyResume after ${asked.size} of ${blocks.count} blocks`);
    this.state = "pages";
    this.sink.resumed();
  }

  private read(): boolean {
    switch (this.records.read()) {
      case "ended":
        this.state = "footer";
        return true;
      case "refused":
        return this.stop();
      case "short":
        return false;
    }
  }

  private footer(): boolean {
    const { cursor, sink } = this;
    if (!cursor.has(5)) return false;
    checkFooter(cursor, cursor.at, this.sectionId);
    cursor.at += 5;
    if (this.sectionKind === ram.SECTION_END) {
      this.state = "eof";
      sink.ramEnd();
      return true;
    }
    this.state = "pages";
    return sink.partEnd() || this.stop();
  }

  private stop(): false {
    this.stopped = true;
    return false;
  }
}
