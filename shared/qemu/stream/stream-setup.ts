/**
 * Reads the set-up of QEMU's stream: the header, the configuration and the start of the RAM section.
 *
 *     "QEVM" 3 | 07 length machine | [05 subsection]* | 01 id "ram" 0 4 | size|4, {name, length}*, 10 | 7e id
 *
 * (migration/savevm.c qemu_savevm_state_header, vmstate_configuration; migration/ram.c ram_save_setup.) After "ram"
 * come the instance 0 and the version 4. `size` is the sum of all lengths, with the flag 4 (RAM_MEM_SIZE) in its low
 * bits. The numbers 10 and 7e are RAM_EOS and the footer, in hexadecimal.
 *
 * Each method reads one item at the cursor, and returns false, without moving, when the item is not all there.
 * StreamReader knows which item is due.
 */
import { PAGE_SIZE, RAM_BLOCKS_MAX } from "../../units.ts";
import { type RamBlock, RamBlocks } from "./ram-blocks.ts";
import { checkFooter } from "./ram-records.ts";
import * as ram from "./ram-section.ts";
import type { StreamCursor } from "./stream-cursor.ts";

/** The RAM blocks of a stream and the section that carries them. */
export interface RamSetup {
  readonly machineType: string;
  readonly ramSectionId: number;
  readonly blocks: readonly RamBlock[];
}

/** The most that a stream may claim. A stream that claims more is refused. */
export interface StreamLimits {
  /** The most RAM blocks. QEMU's machines have tens of blocks. @default 4096 */
  readonly blocksMax?: number;
  /** The most memory, bytes. Page numbers are 32-bit numbers in the agents' tables. @default 16 TiB */
  readonly ramBytesMax?: number;
  /** The largest package of device state in post-copy, bytes. Machines have tens to hundreds of KiB. @default 64 MiB */
  readonly packageBytesMax?: number;
}

const RAM_BYTES_MAX = 2 ** 44;
/** The longest machine name, bytes. Machine names have tens of bytes. */
const NAME_BYTES_MAX = 255;
const UUID_BYTES = 16;

export class StreamSetup {
  readonly ramBlocks = new RamBlocks();
  machineType = "";
  /** The number of the RAM section; -1 before its start. */
  ramSectionId = -1;
  private readonly cursor: StreamCursor;
  private readonly blocksMax: number;
  private readonly ramBytesMax: number;
  private totalBytes = 0;

  constructor(cursor: StreamCursor, limits: StreamLimits) {
    this.cursor = cursor;
    this.blocksMax = limits.blocksMax ?? RAM_BLOCKS_MAX;
    this.ramBytesMax = limits.ramBytesMax ?? RAM_BYTES_MAX;
  }

  /** True when the blocks that were listed make up the total of the memory. */
  get isComplete(): boolean {
    return this.ramBlocks.byteLength === this.totalBytes;
  }

  /** True once RAM's START section has come with all blocks. */
  get isListed(): boolean {
    return this.ramSectionId >= 0 && this.isComplete;
  }

  get result(): RamSetup {
    const { machineType, ramSectionId } = this;
    return { machineType, ramSectionId, blocks: this.ramBlocks.blocks };
  }

  header(): boolean {
    const { cursor } = this;
    if (!cursor.has(8)) return false;
    const magic = cursor.view.getUint32(cursor.at);
    const version = cursor.view.getUint32(cursor.at + 4);
    if (magic !== ram.FILE_MAGIC) throw cursor.invalid(`magic 0x${magic.toString(16)}; not a migration stream of QEMU`);
    if (version !== ram.FILE_VERSION) throw cursor.unsupported(`version ${version} of the stream`);
    cursor.at += 8;
    return true;
  }

  /** Reads the machine's name. The subsections are items of their own. */
  configuration(): boolean {
    const { cursor } = this;
    if (!cursor.has(5)) return false;
    if (cursor.memory[cursor.at] !== ram.CONFIGURATION)
      throw cursor.unsupported("no configuration section (send-configuration=off)");
    const length = cursor.view.getUint32(cursor.at + 1);
    if (length === 0 || length > NAME_BYTES_MAX) throw cursor.invalid(`a machine name of ${length} bytes`);
    if (!cursor.has(5 + length)) return false;
    this.machineType = cursor.text(cursor.at + 5, length);
    cursor.at += 5 + length;
    return true;
  }

  subsection(): boolean {
    const { cursor } = this;
    if (this.ramSectionId >= 0) throw cursor.invalid("a configuration subsection after the start of RAM");
    const name = cursor.name(cursor.at + 1);
    if (name === undefined) return false;
    const body = 2 + name.length + 4;
    // QEMU writes this only for x-ignore-shared and mapped-ram (migration/savevm.c should_validate_capability)
    if (name === "configuration/capabilities")
      throw cursor.unsupported("configuration/capabilities: x-ignore-shared or mapped-ram is on");
    if (name !== "configuration/uuid") throw cursor.unsupported(`subsection ${name}`);
    if (!cursor.has(body + UUID_BYTES)) return false;
    cursor.at += body + UUID_BYTES;
    return true;
  }

  /** Reads the head of RAM's START section, and the total of its blocks' lengths. */
  sectionStart(): boolean {
    const { cursor } = this;
    const id = cursor.name(cursor.at + 5);
    if (id === undefined) return false;
    const versions = cursor.at + 6 + id.length;
    const body = versions + 8;
    if (body + 8 > cursor.limit) return false;
    const instance = cursor.view.getUint32(versions);
    const version = cursor.view.getUint32(versions + 4);
    if (id !== "ram") throw cursor.unsupported(`section ${id}, whose parts do not tell their length`);
    if (this.ramSectionId >= 0) throw cursor.invalid("a second start of RAM");
    if (instance !== 0) throw cursor.invalid(`instance ${instance} of section ram`);
    if (version !== ram.RAM_VERSION) throw cursor.unsupported(`version ${version} of section ram`);
    const size = cursor.uint64(body);
    if (size % PAGE_SIZE !== ram.RAM_MEM_SIZE)
      throw cursor.invalid(`0x${size.toString(16)} in place of the size of the guest's memory`);
    this.totalBytes = size - ram.RAM_MEM_SIZE;
    if (this.totalBytes > this.ramBytesMax)
      throw cursor.unsupported(`${this.totalBytes} bytes of memory, more than ${this.ramBytesMax}`);
    this.ramSectionId = cursor.view.getUint32(cursor.at + 1);
    cursor.at = body + 8;
    return true;
  }

  /**
   * Reads one block of the list. Where the capability postcopy-ram is on, QEMU writes the page size after the length of
   * a block of huge pages. Nothing in the stream marks this number; it is noticed because the lengths of the blocks
   * then do not add up.
   */
  block(): boolean {
    const { cursor, ramBlocks } = this;
    const name = cursor.name(cursor.at);
    if (name === undefined || !cursor.has(1 + name.length + 8)) return false;
    const byteLength = cursor.uint64(cursor.at + 1 + name.length);
    const left = this.totalBytes - ramBlocks.byteLength;
    if (byteLength % PAGE_SIZE !== 0 || byteLength > left)
      throw cursor.unsupported(
        `RAM block ${name} of ${byteLength} bytes with ${left} left of the total (a block of huge pages?)`,
      );
    if (ramBlocks.has(name)) throw cursor.invalid(`RAM block ${name} twice`);
    if (ramBlocks.count === this.blocksMax) throw cursor.unsupported(`more than ${this.blocksMax} RAM blocks`);
    ramBlocks.add(name, byteLength);
    cursor.at += 1 + name.length + 8;
    return true;
  }

  /** Reads the end and the footer of RAM's START section. */
  sectionStartEnd(): boolean {
    const { cursor } = this;
    if (!cursor.has(13)) return false;
    const flags = cursor.uint64(cursor.at);
    if (flags !== ram.RAM_EOS) throw cursor.unsupported(`0x${flags.toString(16)} at the end of RAM's set-up`);
    checkFooter(cursor, cursor.at + 8, this.ramSectionId);
    cursor.at += 13;
    return true;
  }
}
