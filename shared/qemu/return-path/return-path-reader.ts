/**
 * Reads what the destination's QEMU writes on the return path, message by message, in whatever pieces it comes. A
 * message is `be16 type | be16 length | payload`, with a payload of at most 512 bytes (migration/migration.c,
 * source_return_path_thread). The bitmap follows a RECV_BITMAP and is not part of the message's length
 * (migration/ram.c, ramblock_recv_bitmap_send):
 *
 *     5 | 1 + n | n name || be64 size | size bytes | be64 0x0123456789abcdef
 *                                       └ a bit for each page, lowest first, padded to 8 bytes
 *
 * No object is made for a request. Memory is bounded: one message is kept, and a bitmap is passed on in pieces.
 */
import { MigrationFault } from "../../fault.ts";
import { PAGE_SIZE } from "../../units.ts";
import { RamBlocks } from "../stream/ram-blocks.ts";
import { BITMAP_END_HIGH, BITMAP_END_LOW, REQUESTED_PAGES_MAX, RETURN_PATH } from "./return-path.ts";

/** Takes the messages of the destination's QEMU. */
export interface ReturnPathSink {
  /**
   * A vCPU, or the loading of a device, waits for these pages, at most REQUESTED_PAGES_MAX. Pages may be requested more
   * than once.
   */
  requestPages(firstPage: number, pageCount: number): void;
  /** QEMU answers PING(value). */
  pong(value: number): void;
  /** QEMU is done, with 0 for no error, and closes the return path. */
  shut(error: number): void;
  /** QEMU is able to take over (8.1 and later, with the capability switchover-ack). */
  switchoverAck(): void;
  /** QEMU goes on after a broken post-copy. */
  resumeAck(): void;
  /**
   * In a recovery, QEMU says which of the `pageCount` pages from `firstPage` on it has: bit i % 8 of byte i / 8 is set
   * for page `firstPage` + i. The bits are valid until the call returns.
   */
  receivedPages(firstPage: number, pageCount: number, bits: Uint8Array): void;
}

/** Bytes of a message before its payload: type and length. */
const HEAD = 4;
const PAYLOAD_BYTES_MAX = 512;
/** Bytes of the payload of REQ_PAGES: offset and length. */
const REQUEST = 12;
const RESUME_ACK_VALUE = 1;

/** The payload lengths of the messages whose length is fixed. */
const LENGTHS: ReadonlyMap<number, number> = new Map([
  [RETURN_PATH.shut, 4],
  [RETURN_PATH.pong, 4],
  [RETURN_PATH.reqPages, REQUEST],
  [RETURN_PATH.resumeAck, 4],
  [RETURN_PATH.switchoverAck, 0],
]);

type State = "head" | "payload" | "bitmap-size" | "bitmap" | "bitmap-end" | "shut";

export class ReturnPathReader {
  private readonly sink: ReturnPathSink;
  private readonly blocks = new RamBlocks();
  /** Gathers the next item: a head, a payload, the size of a bitmap or its end mark. It is complete at `due` bytes. */
  private readonly item = new Uint8Array(PAYLOAD_BYTES_MAX);
  private readonly view = new DataView(this.item.buffer);
  private gathered = 0;
  private due = HEAD;
  private state: State = "head";
  private type = 0;
  private payloadBytes = 0;
  /** Bytes of the return path that were taken. */
  private position = 0;
  /** The part of a bitmap that is still due: its first page, the number of its pages, and the number of its bytes. */
  private page = 0;
  private pagesLeft = 0;
  private bytesLeft = 0;

  /** @param blocks in the order of the stream, in which pages are numbered */
  constructor(blocks: readonly { readonly name: string; readonly byteLength: number }[], sink: ReturnPathSink) {
    for (const { name, byteLength } of blocks) this.blocks.add(name, byteLength);
    this.sink = sink;
  }

  /** Takes the next bytes. @throws MigrationFault `stream-invalid` */
  push(piece: Uint8Array): void {
    let at = 0;
    while (at < piece.length) {
      if (this.state === "bitmap") {
        at += this.bitmapBytes(piece, at);
        continue;
      }
      if (this.state === "shut") throw this.invalid("bytes after its end");
      const end = Math.min(piece.length, at + this.due - this.gathered);
      // a message is tens of bytes: copying byte by byte is as fast as copying from a view, and makes no object
      for (let i = at; i < end; i++) this.item[this.gathered++] = piece[i]!;
      this.position += end - at;
      at = end;
      if (this.gathered === this.due) this.complete();
    }
  }

  private complete(): void {
    switch (this.state) {
      case "head":
        this.head();
        break;
      case "payload":
        this.expect("head", HEAD);
        this.message();
        break;
      case "bitmap-size":
        this.bitmapSize();
        break;
      default:
        this.bitmapEnd();
    }
  }

  /** Begins to gather the next item. */
  private expect(state: State, bytes: number): void {
    this.state = state;
    this.due = bytes;
    this.gathered = 0;
  }

  private head(): void {
    const type = this.view.getUint16(0);
    const length = this.view.getUint16(2);
    const fixed = LENGTHS.get(type);
    const named = type === RETURN_PATH.reqPagesId || type === RETURN_PATH.recvBitmap;
    if (fixed === undefined && !named) throw this.invalid(`a message of type ${type}`);
    const least = type === RETURN_PATH.reqPagesId ? REQUEST + 1 : 1;
    if (fixed === undefined ? length < least || length > least + 255 : length !== fixed)
      throw this.invalid(`a message of type ${type} with ${length} bytes`);
    this.type = type;
    this.payloadBytes = length;
    this.expect("payload", length);
    // a message without a payload is complete, and no further byte comes for it
    if (length === 0) this.complete();
  }

  /** Takes a complete payload, which stays in `item` for the time of this call. */
  private message(): void {
    const { sink, view } = this;
    switch (this.type) {
      case RETURN_PATH.reqPagesId:
        this.chooseBlock();
        this.request();
        break;
      case RETURN_PATH.reqPages:
        this.request();
        break;
      case RETURN_PATH.pong:
        sink.pong(view.getUint32(0));
        break;
      case RETURN_PATH.shut:
        this.expect("shut", 0);
        sink.shut(view.getUint32(0));
        break;
      case RETURN_PATH.switchoverAck:
        sink.switchoverAck();
        break;
      case RETURN_PATH.resumeAck:
        if (view.getUint32(0) !== RESUME_ACK_VALUE) throw this.invalid(`RESUME_ACK with ${view.getUint32(0)}`);
        sink.resumeAck();
        break;
      default:
        this.bitmapHead();
    }
  }

  private chooseBlock(): void {
    const length = this.nameLength(REQUEST);
    if (!this.blocks.choose(this.item, REQUEST + 1, length))
      throw this.invalid(`a request for RAM block ${this.name(REQUEST)}, which was not listed`);
  }

  /** Reads the length of the name at `at`, with which the payload has to end. */
  private nameLength(at: number): number {
    const length = this.item[at]!;
    if (at + 1 + length !== this.payloadBytes) throw this.invalid(`a block's name of ${length} bytes`);
    return length;
  }

  private name(at: number): string {
    return Buffer.from(this.item.buffer, at + 1, this.nameLength(at)).toString("latin1");
  }

  private request(): void {
    const start = this.uint64(0);
    const byteLength = this.view.getUint32(8);
    const page = this.blocks.rangeAt(start, byteLength);
    if (byteLength > REQUESTED_PAGES_MAX * PAGE_SIZE) throw this.invalid(`a request for ${byteLength} bytes at once`);
    if (page < 0) throw this.invalid(`a request for ${this.blocks.whyNoRange(start, byteLength)}`);
    this.sink.requestPages(page, byteLength / PAGE_SIZE);
  }

  private bitmapHead(): void {
    const block = this.blocks.named(this.name(0));
    if (block === undefined) throw this.invalid(`a bitmap of RAM block ${this.name(0)}, which was not listed`);
    this.page = block.firstPage;
    this.pagesLeft = block.byteLength / PAGE_SIZE;
    this.expect("bitmap-size", 8);
  }

  private bitmapSize(): void {
    const size = this.uint64(0);
    const dueBytes = Math.ceil(this.pagesLeft / 64) * 8;
    if (size !== dueBytes) throw this.invalid(`a bitmap of ${size} bytes for ${this.pagesLeft} pages`);
    this.bytesLeft = size;
    if (size > 0) this.state = "bitmap";
    else this.expect("bitmap-end", 8);
  }

  /** Passes on the part of the bitmap that the piece has at `at`. @returns how many bytes that was */
  private bitmapBytes(piece: Uint8Array, at: number): number {
    const length = Math.min(piece.length - at, this.bytesLeft);
    const pages = Math.min(8 * length, this.pagesLeft);
    if (pages > 0) this.sink.receivedPages(this.page, pages, piece.subarray(at, at + length));
    this.page += pages;
    this.pagesLeft -= pages;
    this.bytesLeft -= length;
    this.position += length;
    if (this.bytesLeft === 0) this.expect("bitmap-end", 8);
    return length;
  }

  private bitmapEnd(): void {
    if (this.view.getUint32(0) !== BITMAP_END_HIGH || this.view.getUint32(4) !== BITMAP_END_LOW)
      throw this.invalid("a bitmap without its end mark");
    this.expect("head", HEAD);
  }

  /** Reads a be64. A number above 2^53 is not exact, but is beyond the end of every block all the same. */
  private uint64(at: number): number {
    return this.view.getUint32(at) * 2 ** 32 + this.view.getUint32(at + 4);
  }

  private invalid(what: string): MigrationFault {
    return new MigrationFault("stream-invalid", `QEMU's return path has ${what} (before byte ${this.position})`);
  }
}
