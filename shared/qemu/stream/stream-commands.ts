/**
 * Reads the commands of QEMU's stream, `08 | be16 command | be16 length | payload`, and the package that follows one of
 * them (migration/savevm.c, loadvm_process_command; migration/postcopy-ram.c). These commands are taken:
 *
 *     OPEN_RETURN_PATH                     means nothing to the agents
 *     SWITCHOVER_START                     means that the guest is stopped
 *     PING                                 passed on where there is a sink for post-copy: the source agent answers it
 *     ADVISE … DISCARD* PACKAGED{ … }      post-copy; refused by name where there is no sink for it
 *
 * The commands of a recovery of a broken post-copy (RECV_BITMAP, RESUME) come in a stream without a header, and are
 * refused here.
 */
import { PAGE_SIZE } from "../../units.ts";
import type { PlacedBlock } from "./ram-blocks.ts";
import type { PageSink } from "./ram-records.ts";
import * as ram from "./ram-section.ts";
import type { StreamCursor } from "./stream-cursor.ts";
import type { StreamLimits, StreamSetup } from "./stream-setup.ts";

/**
 * Takes what only a stream with the capability postcopy-ram has. The calls come in this order: advised(); then pages,
 * as in precopy; then, with the guest stopped, discard() any number of times, the package, and the pages that are left,
 * now in their last versions and each once. Such a stream may also complete as in precopy; then only advised() and
 * ping() are called.
 */
export interface PostcopySink {
  /** QEMU asks for PONG(value) on its return path. PINGs within the package are not passed on. */
  ping(value: number): void;
  /**
   * QEMU may go into post-copy. Called between two pieces of the prologue; the destination's OPEN_RETURN_PATH and
   * ADVISE belong between these pieces.
   */
  advised(): void;
  /** The destination must forget these pages: what it has of them is stale, and they come again. */
  discard(firstPage: number, pageCount: number): void;
  /** The device state follows, `byteLength` bytes, which are to be loaded in one go when all of them are there. */
  packageStart(byteLength: number): void;
  /** Takes bytes of the package at [start, end) of the reader's memory, valid until the call returns; in any pieces. */
  packageBytes(start: number, end: number): void;
  /** The package is complete. @returns the sink that takes the pages that are left, and the end of the stream */
  packageEnd(): PageSink;
}

/** The largest package that is taken by default, bytes. */
export const PACKAGE_BYTES_MAX = 64 << 20;
/** Bytes of a command before its payload. */
const HEAD = 5;
/** Bytes of a discard beside the name and the ranges: the version, the length of the name, and the 0 after the name. */
const DISCARD_FIXED = 3;
/** Bytes of a range in a discard: two words of 64 bits. */
const DISCARD_RANGE = 16;
const DISCARD_BYTES_MAX = DISCARD_FIXED + 255 + ram.DISCARDS_PER_COMMAND * DISCARD_RANGE;

/** The payload lengths of the commands whose length is fixed; the length of a discard varies. */
const LENGTHS: ReadonlyMap<number, number> = new Map([
  [ram.COMMANDS.openReturnPath, 0],
  [ram.COMMANDS.ping, 4],
  [ram.COMMANDS.switchoverStart, 0],
  [ram.COMMANDS.postcopyAdvise, 16],
  [ram.COMMANDS.packaged, 4],
]);
const POSTCOPY_ONLY: readonly number[] = [
  ram.COMMANDS.postcopyAdvise,
  ram.COMMANDS.postcopyRamDiscard,
  ram.COMMANDS.packaged,
];
/** The commands that QEMU sends with its guest stopped. */
export const STOPPED_COMMANDS: readonly number[] = [
  ram.COMMANDS.switchoverStart,
  ram.COMMANDS.postcopyRamDiscard,
  ram.COMMANDS.packaged,
];

type Phase = "plain" | "advised" | "discarding" | "packaged";

export class StreamCommands {
  private readonly cursor: StreamCursor;
  private readonly setup: StreamSetup;
  private readonly sink: PostcopySink | undefined;
  private readonly packageBytesMax: number;
  private phase: Phase = "plain";
  private packageLeft = 0;
  /** The sink for what comes after the package; undefined before that, and where there is no sink for post-copy. */
  nextSink: PageSink | undefined;

  constructor(cursor: StreamCursor, setup: StreamSetup, limits: StreamLimits, sink: PostcopySink | undefined) {
    this.cursor = cursor;
    this.setup = setup;
    this.sink = sink;
    this.packageBytesMax = limits.packageBytesMax ?? PACKAGE_BYTES_MAX;
  }

  /** True once the head of the package has come. Only PINGs, pages and the end of the stream follow the package. */
  get isPostcopy(): boolean {
    return this.phase === "packaged";
  }

  /** True while bytes of the package are due, which packageBytes() takes. */
  get inPackage(): boolean {
    return this.packageLeft > 0;
  }

  /** @returns the number of the command at the cursor if it is all there, otherwise -1 */
  next(): number {
    const { cursor } = this;
    if (!cursor.has(HEAD)) return -1;
    const command = cursor.view.getUint16(cursor.at + 1);
    const length = cursor.view.getUint16(cursor.at + 3);
    const due = LENGTHS.get(command);
    const known = due !== undefined || command === ram.COMMANDS.postcopyRamDiscard;
    if (!known || (this.sink === undefined && POSTCOPY_ONLY.includes(command)))
      throw cursor.unsupported(`command ${ram.commandName(command)}`);
    if (command === ram.COMMANDS.postcopyAdvise && length === 0)
      throw cursor.unsupported("dirty bitmaps in post-copy (capability dirty-bitmaps)");
    if (due === undefined ? length > DISCARD_BYTES_MAX : length !== due)
      throw cursor.invalid(`a command ${ram.commandName(command)} of ${length} bytes`);
    return cursor.has(HEAD + length) ? command : -1;
  }

  /** Takes the command that next() has returned, and moves past it. */
  take(command: number): void {
    const { cursor } = this;
    const { at } = cursor;
    const length = cursor.view.getUint16(at + 3);
    if (this.isPostcopy && command !== ram.COMMANDS.ping)
      throw cursor.invalid(`command ${ram.commandName(command)} in post-copy`);
    switch (command) {
      case ram.COMMANDS.ping:
        this.sink?.ping(cursor.view.getUint32(at + HEAD));
        break;
      case ram.COMMANDS.postcopyAdvise:
        this.advise(at + HEAD);
        break;
      case ram.COMMANDS.postcopyRamDiscard:
        this.discard(at + HEAD, length);
        break;
      case ram.COMMANDS.packaged:
        this.beginPackage(cursor.view.getUint32(at + HEAD));
    }
    cursor.at = at + HEAD + length;
  }

  /** Passes on the bytes of the package that are there. @returns false when there are none */
  packageBytes(): boolean {
    const { cursor, sink } = this;
    const length = Math.min(cursor.limit - cursor.at, this.packageLeft);
    if (length === 0) return false;
    sink?.packageBytes(cursor.at, cursor.at + length);
    cursor.at += length;
    this.packageLeft -= length;
    if (this.packageLeft === 0) this.nextSink = sink?.packageEnd();
    return true;
  }

  private advise(at: number): void {
    const { cursor } = this;
    if (this.phase !== "plain") throw cursor.invalid("a second command postcopyAdvise");
    if (this.setup.ramSectionId >= 0) throw cursor.invalid("a command postcopyAdvise after the start of RAM");
    // the page sizes of all RAM blocks, combined by OR: this shows huge pages before the list of blocks does
    const sizes = cursor.uint64(at);
    if (sizes !== PAGE_SIZE)
      throw cursor.unsupported(`RAM in pages of other sizes than ${PAGE_SIZE} (0x${sizes.toString(16)})`);
    const target = cursor.uint64(at + 8);
    if (target !== PAGE_SIZE) throw cursor.unsupported(`a guest with pages of ${target} bytes`);
    this.phase = "advised";
    this.sink?.advised();
  }

  private discard(at: number, length: number): void {
    const { cursor, setup } = this;
    this.checkSwitching("postcopyRamDiscard");
    const nameLength = cursor.memory[at + 1]!;
    const ranges = at + DISCARD_FIXED + nameLength;
    const rest = length - DISCARD_FIXED - nameLength;
    if (rest < DISCARD_RANGE || rest % DISCARD_RANGE !== 0 || rest > ram.DISCARDS_PER_COMMAND * DISCARD_RANGE)
      throw cursor.invalid(`a command postcopyRamDiscard of ${length} bytes with a name of ${nameLength}`);
    if (cursor.memory[at] !== ram.DISCARD_VERSION) throw cursor.unsupported(`discards of version ${cursor.memory[at]}`);
    const name = cursor.text(at + 2, nameLength);
    const block = setup.ramBlocks.named(name);
    if (block === undefined) throw cursor.invalid(`a discard of RAM block ${name}, which was not listed`);
    if (cursor.memory[ranges - 1] !== 0) throw cursor.invalid("a discard whose name has no end");
    this.phase = "discarding";
    for (let range = ranges; range < ranges + rest; range += DISCARD_RANGE) this.discardRange(block, range);
  }

  private discardRange(block: PlacedBlock, at: number): void {
    const { cursor, setup } = this;
    const start = cursor.uint64(at);
    const byteLength = cursor.uint64(at + 8);
    const page = setup.ramBlocks.rangeAt(start, byteLength, block);
    if (page < 0) throw cursor.invalid(`a discard of ${setup.ramBlocks.whyNoRange(start, byteLength, block)}`);
    this.sink?.discard(page, byteLength / PAGE_SIZE);
  }

  private beginPackage(byteLength: number): void {
    const { cursor } = this;
    this.checkSwitching("packaged");
    if (byteLength === 0) throw cursor.invalid("an empty package");
    if (byteLength > this.packageBytesMax)
      throw cursor.unsupported(`a package of ${byteLength} bytes, more than ${this.packageBytesMax}`);
    this.phase = "packaged";
    this.packageLeft = byteLength;
    this.sink?.packageStart(byteLength);
  }

  private checkSwitching(command: string): void {
    if (this.phase === "plain") throw this.cursor.invalid(`a command ${command} without postcopyAdvise`);
    if (!this.setup.isListed) throw this.cursor.invalid(`a command ${command} before the start of RAM`);
  }
}
