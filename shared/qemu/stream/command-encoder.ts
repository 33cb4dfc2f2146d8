/**
 * Encodes the commands that an agent writes to the destination's QEMU (migration/savevm.c qemu_savevm_command_send). A
 * stream with post-copy has, in this order:
 *
 *     header, configuration | OPEN_RETURN_PATH ADVISE | START(ram) PART(ram)* | DISCARD* PACKAGED(length) package
 *     PART(ram)* END(ram) EOF
 *
 * QEMU requires of such a stream (loadvm_process_command and loadvm_postcopy_handle_* of migration/savevm.c; tried with
 * 10.0.2):
 * - ADVISE comes before the first page. It makes QEMU forget all of its RAM, ROMs too. The package begins with LISTEN
 *   and ends with RUN. From LISTEN to the end of the stream, a page that never came is not zero but missing: a vCPU or
 *   device that touches it waits for it. So zero pages are sent as well, each of them, as QEMU does.
 * - OPEN_RETURN_PATH comes before the package. The package has a PING in it (3; from 10.2 on also 0x42), which fails
 *   without a return path.
 * - No other PING is needed. The source agent itself answers the PINGs outside of the package (1, 2, 4). A source QEMU
 *   10.0 needs PONG(1) if it has a separate channel for requested pages (postcopy-preempt), and no PONG otherwise. The
 *   destination's QEMU answers the PINGs of the package when the devices are loaded, ahead of RUN. These PONGs are
 *   passed on to the source's QEMU, which waits for PONG(0x42) from 10.2 on.
 * - An agent may add a PING of its own. QEMU answers it in its turn, after the pages that stand before it.
 * - After the package each page comes once. At a page that it has already, QEMU breaks off (postcopy-paused). It
 *   refuses XBZRLE.
 */
import { PAGE_SIZE } from "../../units.ts";
import { BlockTable, holds, putUint64, type TableBlock } from "./block-table.ts";
import * as ram from "./ram-section.ts";
import { encodeRamEnd } from "./stream-writer.ts";

/** Bytes of a command before its payload: section type, command and length. */
const HEAD = 5;

export const encodeOpenReturnPath = (): Uint8Array => withPayload(ram.COMMANDS.openReturnPath, 0);

/** Encodes PING(value), which QEMU answers with PONG(value) in its turn. */
export const encodePing = (value: number): Uint8Array => withWord(ram.COMMANDS.ping, value);

/** Encodes ADVISE: post-copy may follow. It is for RAM in pages of 4 KiB only. */
export function encodeAdvise(): Uint8Array {
  const bytes = withPayload(ram.COMMANDS.postcopyAdvise, 16);
  const view = new DataView(bytes.buffer);
  view.setUint32(HEAD + 4, PAGE_SIZE);
  view.setUint32(HEAD + 12, PAGE_SIZE);
  return bytes;
}

/** Encodes PACKAGED. The package itself has to follow: `byteLength` bytes as the source's QEMU wrote them. */
export const encodePackageHead = (byteLength: number): Uint8Array => withWord(ram.COMMANDS.packaged, byteLength);

/**
 * Encodes RECV_BITMAP, which is for the stream on a new connection after a break; that stream has no header. QEMU
 * answers with RECV_BITMAP on the return path, which says which pages of the block it has.
 * @param block the name of the block, at most 255 bytes
 */
export function encodeRecvBitmap(block: string): Uint8Array {
  const name = Buffer.from(block, "latin1");
  const bytes = withPayload(ram.COMMANDS.recvBitmap, 1 + name.length);
  bytes[HEAD] = name.length;
  bytes.set(name, HEAD + 1);
  return bytes;
}

/**
 * Encodes RESUME, which follows the requests for bitmaps. QEMU answers with RESUME_ACK, asks again for the pages that
 * it waits for, and takes pages.
 */
export const encodeResume = (): Uint8Array => withPayload(ram.COMMANDS.postcopyResume, 0);

/**
 * Encodes what follows the last page of post-copy: RAM's last section with nothing in it, and the end of the stream.
 */
export const encodePostcopyEnd = (ramSectionId: number): Uint8Array =>
  Uint8Array.of(...encodeRamEnd(ramSectionId), ram.EOF);

/** Turns ranges of pages into RAM_DISCARD commands, each with up to twelve ranges of one block, as QEMU does. */
export class DiscardEncoder {
  private readonly blocks: BlockTable;
  private readonly emit: (command: Uint8Array) => void;
  private readonly bytes = new Uint8Array(HEAD + 3 + 255 + ram.DISCARDS_PER_COMMAND * 16);
  private readonly view = new DataView(this.bytes.buffer);
  /** The block of the ranges that were gathered. */
  private block: TableBlock | undefined;
  /** How many ranges were gathered. */
  private ranges = 0;
  /** Where the next range goes. */
  private at = 0;

  /**
   * @param blocks in the order of the stream, in which pages are numbered
   * @param emit takes a command; its bytes are valid until it returns
   */
  constructor(
    blocks: readonly { readonly name: string; readonly byteLength: number }[],
    emit: (command: Uint8Array) => void,
  ) {
    this.blocks = new BlockTable(blocks);
    this.emit = emit;
  }

  /**
   * Discards the pages [firstPage, firstPage + pageCount), in any blocks.
   * @throws RangeError when there are no such pages
   */
  add(firstPage: number, pageCount: number): void {
    let page = firstPage;
    const end = firstPage + pageCount;
    while (page < end) {
      const present = this.block;
      const block = holds(present, page) ? present : this.blocks.find(page);
      const until = Math.min(end, block.endPage);
      if (block !== present || this.ranges === ram.DISCARDS_PER_COMMAND) this.flush();
      this.range(block, page - block.firstPage, until - page);
      page = until;
    }
  }

  /** Emits the command with the ranges that were gathered. */
  flush(): void {
    if (this.ranges === 0) return;
    this.view.setUint16(3, this.at - HEAD);
    this.emit(this.bytes.subarray(0, this.at));
    this.ranges = 0;
  }

  private range(block: TableBlock, page: number, pageCount: number): void {
    if (this.ranges === 0) this.head(block);
    putUint64(this.view, this.at, page * PAGE_SIZE);
    putUint64(this.view, this.at + 8, pageCount * PAGE_SIZE);
    this.at += 16;
    this.ranges++;
  }

  private head(block: TableBlock): void {
    const { name } = block;
    this.block = block;
    this.view.setUint8(0, ram.COMMAND);
    this.view.setUint16(1, ram.COMMANDS.postcopyRamDiscard);
    this.bytes.set([ram.DISCARD_VERSION, name.length], HEAD);
    this.bytes.set(name, HEAD + 2);
    this.at = HEAD + 3 + name.length;
    this.bytes[this.at - 1] = 0;
  }
}

function withWord(command: number, value: number): Uint8Array {
  const bytes = withPayload(command, 4);
  new DataView(bytes.buffer).setUint32(HEAD, value);
  return bytes;
}

function withPayload(command: number, length: number): Uint8Array {
  const bytes = new Uint8Array(HEAD + length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, ram.COMMAND);
  view.setUint16(1, command);
  view.setUint16(3, length);
  return bytes;
}
