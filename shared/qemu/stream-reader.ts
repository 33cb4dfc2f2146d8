/**
 * Reads QEMU's precopy stream incrementally, in place: pages are told by their address, nothing is copied or made for them.
 *
 *     header | configuration | [commands] | START(ram) … PART(ram)* … END(ram) | devices … description
 *     └────────── prologue, verbatim ───────────────┘   pages          └── opaque, verbatim ──┘
 *
 * Read for QEMU 8.1 to 10.x, x86, 4 KiB pages (migration/savevm.c, migration/ram.c). What the stream may hold beyond
 * that is refused by name. Not its job: whether the machine fits the destination.
 *
 * Invariant: writing what was read gives the same bytes (stream-writer.ts), less the commands, which are for the agents.
 */
import { MigrationFault } from "../fault.ts";
import { PAGE_SIZE } from "../units.ts";
import * as ram from "./ram-section.ts";
import { StreamEnd } from "./stream-end.ts";

/** The RAM blocks of a stream and the section that carries them. */
export interface RamSetup {
  readonly machineType: string;
  readonly ramSectionId: number;
  readonly blocks: readonly { readonly name: string; readonly byteLength: number; readonly pageSize: number }[];
}

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

interface Block {
  readonly name: string;
  readonly byteLength: number;
  readonly firstPage: number;
}

type State =
  | "header"
  | "configuration"
  | "sections"
  | "blocks"
  | "ram-start-end"
  | "records"
  | "footer"
  | "devices"
  | "finished";

/** An item is at most a RAM record with a block name and a page; a configuration is read in fields. */
const ITEM_BYTES_MAX = 8 + 256 + PAGE_SIZE;
/** Machine names are tens of bytes. */
const NAME_BYTES_MAX = 255;
/** QEMU's machines have tens of blocks. */
const BLOCKS_MAX = 4096;

export class StreamReader {
  /** Most bytes that must be there at once for consume() to get on. */
  readonly needs = ITEM_BYTES_MAX;
  /** Did the sink stop the reader in the last consume()? */
  stopped = false;
  private readonly memory: Uint8Array;
  private readonly view: DataView;
  private readonly sink: StreamSink;
  private readonly end = new StreamEnd();
  private state: State = "header";
  private at = 0;
  private limit = 0;
  /** Position of `at` in the stream, for messages. */
  private consumed = 0;
  private prologueFrom = 0;
  private machineType = "";
  private ramSectionId = -1;
  private sectionKind = 0;
  private blocks: Block[] = [];
  private blockNames = new Map<string, number>();
  private totalBytes = 0;
  private listedBytes = 0;
  private block: Block | undefined;
  private guestStopped = false;

  constructor(memory: Uint8Array, sink: StreamSink) {
    this.memory = memory;
    this.view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
    this.sink = sink;
  }

  /**
   * Reads complete items of [start, end).
   * @returns the address of the first byte that was not consumed; it may be moved before the next call
   * @throws MigrationFault `stream-invalid`, `stream-unsupported`
   */
  consume(start: number, end: number): number {
    this.at = start;
    this.limit = end;
    this.prologueFrom = start;
    this.stopped = false;
    while (!this.stopped && this.step());
    this.flushPrologue();
    this.consumed += this.at - start;
    return this.at;
  }

  /** @returns was something consumed? */
  private step(): boolean {
    switch (this.state) {
      case "records":
        return this.records();
      case "header":
        return this.header();
      case "configuration":
        return this.configuration();
      case "sections":
        return this.section();
      case "blocks":
        return this.blockEntry();
      case "ram-start-end":
        return this.ramStartEnd();
      case "footer":
        return this.footer();
      case "devices":
        return this.devices();
      case "finished":
        if (this.at < this.limit) throw this.invalid(`${this.limit - this.at} bytes after its end`);
        return false;
    }
  }

  private header(): boolean {
    if (!this.has(8)) return false;
    const magic = this.view.getUint32(this.at);
    const version = this.view.getUint32(this.at + 4);
    if (magic !== ram.FILE_MAGIC) throw this.invalid(`magic 0x${magic.toString(16)}; not a migration stream of QEMU`);
    if (version !== ram.FILE_VERSION) throw this.unsupported(`version ${version} of the stream`);
    this.take(8);
    this.state = "configuration";
    return true;
  }

  /** Machine name; subsections follow as sections of type 5, which section() reads. */
  private configuration(): boolean {
    if (!this.has(5)) return false;
    if (this.memory[this.at] !== ram.CONFIGURATION)
      throw this.unsupported("no configuration section (send-configuration=off)");
    const length = this.view.getUint32(this.at + 1);
    if (length === 0 || length > NAME_BYTES_MAX) throw this.invalid(`a machine name of ${length} bytes`);
    if (!this.has(5 + length)) return false;
    this.machineType = this.text(this.at + 5, length);
    this.take(5 + length);
    this.state = "sections";
    return true;
  }

  private section(): boolean {
    if (!this.has(1)) return false;
    const type = this.memory[this.at]!;
    switch (type) {
      case ram.COMMAND:
        return this.command();
      case ram.SUBSECTION:
        return this.configurationSubsection();
      case ram.SECTION_START:
        return this.sectionStart();
      case ram.SECTION_PART:
      case ram.SECTION_END:
        return this.sectionPart(type);
      case ram.SECTION_FULL:
        throw this.unsupported(`${this.idAt(5)}: device state before the end of RAM (virtio-mem with early setup)`);
      default:
        throw this.invalid(`a section of type ${type} before the end of RAM`);
    }
  }

  /** Commands are for the destination agent's QEMU only in post-copy; here the agents answer them. */
  private command(): boolean {
    if (!this.has(5)) return false;
    const command = this.view.getUint16(this.at + 1);
    const length = this.view.getUint16(this.at + 3);
    const { openReturnPath, ping, switchoverStart } = ram.COMMANDS;
    if (command !== openReturnPath && command !== ping && command !== switchoverStart) {
      const name = Object.entries(ram.COMMANDS).find(([, number]) => number === command)?.[0] ?? `number ${command}`;
      throw this.unsupported(`command ${name}`);
    }
    if (length > 4) throw this.invalid(`a command of ${length} bytes`);
    if (!this.has(5 + length)) return false;
    if (command === switchoverStart) this.guestIsStopped();
    this.flushPrologue();
    this.at += 5 + length;
    this.prologueFrom = this.at;
    return true;
  }

  private configurationSubsection(): boolean {
    if (this.ramSectionId >= 0) throw this.invalid("a configuration subsection after the start of RAM");
    if (!this.has(2)) return false;
    const name = this.memory[this.at + 1]!;
    if (!this.has(2 + name + 4)) return false;
    const id = this.text(this.at + 2, name);
    if (id !== "configuration/uuid") throw this.unsupported(id);
    if (!this.has(2 + name + 4 + 16)) return false;
    this.take(2 + name + 4 + 16);
    return true;
  }

  private sectionStart(): boolean {
    if (!this.has(6)) return false;
    const name = this.memory[this.at + 5]!;
    if (!this.has(6 + name + 8 + 8)) return false;
    const id = this.text(this.at + 6, name);
    const version = this.view.getUint32(this.at + 6 + name + 4);
    if (id !== "ram") throw this.unsupported(`section ${id}, whose parts do not tell their length`);
    if (this.ramSectionId >= 0) throw this.invalid("a second start of RAM");
    if (version !== ram.RAM_VERSION) throw this.unsupported(`version ${version} of section ram`);
    const bodyAt = this.at + 6 + name + 8;
    this.ramSectionId = this.view.getUint32(this.at + 1);
    this.totalBytes = this.flagged(bodyAt, ram.RAM_MEM_SIZE);
    this.listedBytes = 0;
    this.take(6 + name + 8 + 8);
    this.state = this.totalBytes === 0 ? "ram-start-end" : "blocks";
    return true;
  }

  private blockEntry(): boolean {
    if (!this.has(1)) return false;
    const length = this.memory[this.at]!;
    if (!this.has(1 + length + 8)) return false;
    const name = this.text(this.at + 1, length);
    const byteLength = this.uint64(this.at + 1 + length);
    if (byteLength % PAGE_SIZE !== 0 || byteLength > this.totalBytes - this.listedBytes)
      throw this.unsupported(
        `RAM block ${name} of ${byteLength} bytes with ${this.totalBytes - this.listedBytes} left of the total (a block of huge pages?)`,
      );
    if (this.blockNames.has(name)) throw this.invalid(`RAM block ${name} twice`);
    if (this.blocks.length === BLOCKS_MAX) throw this.unsupported(`more than ${BLOCKS_MAX} RAM blocks`);
    this.blockNames.set(name, this.blocks.length);
    this.blocks.push({ name, byteLength, firstPage: this.listedBytes / PAGE_SIZE });
    this.listedBytes += byteLength;
    this.take(1 + length + 8);
    if (this.listedBytes === this.totalBytes) this.state = "ram-start-end";
    return true;
  }

  private ramStartEnd(): boolean {
    if (!this.has(13)) return false;
    const flags = this.uint64(this.at);
    if (flags !== ram.RAM_EOS) throw this.unsupported(`0x${flags.toString(16)} at the end of RAM's setup`);
    this.checkFooter(this.at + 8);
    this.take(13);
    this.flushPrologue();
    this.state = "sections";
    const blocks = this.blocks.map(({ name, byteLength }) => ({ name, byteLength, pageSize: PAGE_SIZE }));
    this.sink.layout({ machineType: this.machineType, ramSectionId: this.ramSectionId, blocks });
    return true;
  }

  private sectionPart(type: number): boolean {
    if (!this.has(5)) return false;
    const id = this.view.getUint32(this.at + 1);
    if (id !== this.ramSectionId) throw this.invalid(`a part of section ${id}, which did not start`);
    if (type === ram.SECTION_END) this.guestIsStopped();
    this.sectionKind = type;
    this.skip(5);
    this.state = "records";
    return true;
  }

  /** The hot path: record after record until the section's end, the end of what is there, or a sink that is full. */
  private records(): boolean {
    const { memory, view, sink } = this;
    while (this.limit - this.at >= 8) {
      const low = view.getUint32(this.at + 4);
      const flags = low & ram.RAM_FLAGS;
      let body = this.at + 8;
      if ((flags & ram.RAM_CONTINUE) === 0 && flags !== ram.RAM_EOS) {
        if (this.limit - body < 1) return false;
        const length = memory[body]!;
        if (this.limit - body < 1 + length) return false;
        this.chooseBlock(body + 1, length);
        body += 1 + length;
      }
      const kind = flags & ~ram.RAM_CONTINUE;
      if (kind === ram.RAM_PAGE) {
        if (this.limit - body < PAGE_SIZE) return false;
        if (!sink.page(this.pageOf(low), body)) return this.stop();
        this.skip(body + PAGE_SIZE - this.at);
      } else if (kind === ram.RAM_ZERO) {
        if (this.limit - body < 1) return false;
        if (memory[body] !== 0) throw this.unsupported(`a page filled with ${memory[body]}`);
        if (!sink.zeroPage(this.pageOf(low))) return this.stop();
        this.skip(body + 1 - this.at);
      } else if (flags === ram.RAM_EOS) {
        if (view.getUint32(this.at) !== 0 || low !== ram.RAM_EOS)
          throw this.invalid("an end of section with an offset");
        this.skip(8);
        this.state = "footer";
        return true;
      } else {
        throw this.unsupported(`${flagName(kind)} in RAM`);
      }
    }
    return false;
  }

  private footer(): boolean {
    if (!this.has(5)) return false;
    this.checkFooter(this.at);
    this.skip(5);
    if (this.sectionKind === ram.SECTION_END) {
      this.state = "devices";
      this.sink.ramEnd();
      return true;
    }
    this.state = "sections";
    if (!this.sink.partEnd()) this.stop();
    return true;
  }

  private devices(): boolean {
    const { at, limit } = this;
    if (at === limit) return false;
    const complete = this.end.push(this.memory.subarray(at, limit));
    this.sink.device(at, limit);
    this.skip(limit - at);
    if (complete) {
      this.state = "finished";
      this.sink.end();
    }
    return true;
  }

  private chooseBlock(at: number, length: number): void {
    const present = this.block;
    // mostly the same block again; comparing bytes makes no string
    if (present !== undefined && present.name.length === length) {
      let same = true;
      for (let i = 0; i < length && same; i++) same = this.memory[at + i] === present.name.charCodeAt(i);
      if (same) return;
    }
    const name = this.text(at, length);
    const index = this.blockNames.get(name);
    if (index === undefined) throw this.invalid(`a page of RAM block ${name}, which was not listed`);
    this.block = this.blocks[index];
  }

  private pageOf(low: number): number {
    const block = this.block;
    if (block === undefined) throw this.invalid("a page without a RAM block");
    const offset = this.view.getUint32(this.at) * 2 ** 32 + (low - (low & ram.RAM_FLAGS));
    if (offset >= block.byteLength)
      throw this.invalid(`offset ${offset} in RAM block ${block.name} of ${block.byteLength} bytes`);
    return block.firstPage + offset / PAGE_SIZE;
  }

  private guestIsStopped(): void {
    if (this.guestStopped) return;
    this.guestStopped = true;
    this.sink.stopped();
  }

  private checkFooter(at: number): void {
    if (this.memory[at] !== ram.SECTION_FOOTER) throw this.unsupported("no section footer (send-section-footer=off)");
    const id = this.view.getUint32(at + 1);
    if (id !== this.ramSectionId) throw this.invalid(`a footer of section ${id} in section ${this.ramSectionId}`);
  }

  private has(bytes: number): boolean {
    return this.limit - this.at >= bytes;
  }

  /** Consumes bytes of the prologue. */
  private take(bytes: number): void {
    this.at += bytes;
  }

  /** Consumes bytes that are not passed on as they are. */
  private skip(bytes: number): void {
    this.at += bytes;
    this.prologueFrom = this.at;
  }

  private stop(): boolean {
    this.stopped = true;
    return false;
  }

  private flushPrologue(): void {
    if (this.at > this.prologueFrom) this.sink.prologue(this.prologueFrom, this.at);
    this.prologueFrom = this.at;
  }

  private flagged(at: number, flag: number): number {
    const value = this.uint64(at);
    if (value % PAGE_SIZE !== flag) throw this.invalid(`0x${value.toString(16)} where RAM's size was due`);
    return value - flag;
  }

  private uint64(at: number): number {
    const high = this.view.getUint32(at);
    if (high >= 2 ** 20) throw this.invalid(`a length beyond 2^52 at byte ${this.position}`);
    return high * 2 ** 32 + this.view.getUint32(at + 4);
  }

  private text(at: number, length: number): string {
    return Buffer.from(this.memory.buffer, this.memory.byteOffset + at, length).toString("latin1");
  }

  private idAt(offset: number): string {
    const length = this.memory[this.at + offset] ?? 0;
    return this.has(offset + 1 + length) ? this.text(this.at + offset + 1, length) : "a section";
  }

  private get position(): number {
    return this.consumed;
  }

  private invalid(what: string): MigrationFault {
    return new MigrationFault("stream-invalid", `QEMU's stream has ${what} (after byte ${this.position})`);
  }

  private unsupported(what: string): MigrationFault {
    return new MigrationFault(
      "stream-unsupported",
      `QEMU's stream has ${what}, which Ferry does not carry (after byte ${this.position})`,
    );
  }
}

function flagName(kind: number): string {
  if (kind & ram.RAM_XBZRLE) return "XBZRLE records (capability xbzrle)";
  if (kind & ram.RAM_COMPRESS_PAGE) return "compressed pages (capability compress)";
  if (kind & ram.RAM_MULTIFD_FLUSH) return "multifd (capability multifd)";
  if (kind & ram.RAM_HOOK) return "hooks (RDMA)";
  return `records with flags 0x${kind.toString(16)}`;
}
