/**
 * Encodes messages of the return path, which go from the destination to the source: u16 type, u16 length, payload
 * (migration/migration.c, mig_rp_message_type). The source agent writes them to answer the source's QEMU. What the
 * destination's QEMU writes on its return path is read by return-path-reader.ts.
 */
import { PAGE_SIZE } from "../../units.ts";
import { BlockTable, holds, putUint64, type TableBlock } from "../stream/block-table.ts";

/** The types of messages. */
export const RETURN_PATH = {
  shut: 1,
  pong: 2,
  reqPagesId: 3,
  reqPages: 4,
  recvBitmap: 5,
  resumeAck: 6,
  switchoverAck: 7,
} as const;

/**
 * The most pages that one request may name. A QEMU asks for a single page at a time (migration/postcopy-ram.c), and
 * guests with huge pages are refused in post-copy. Without this bound, a few bytes from a QEMU or a peer that an
 * attacker controls could keep the agent's other migrations waiting.
 */
export const REQUESTED_PAGES_MAX = 1024;

/** The two halves of the mark that follows a bitmap (migration/ram.c, RAMBLOCK_RECV_BITMAP_ENDING). */
export const BITMAP_END_HIGH = 0x01234567;
export const BITMAP_END_LOW = 0x89abcdef;

/** Says that the destination is done. With error 0 the source's QEMU completes; with any other, its migration fails. */
export const encodeShut = (error: number): Uint8Array => withWord(RETURN_PATH.shut, error);
/** Answers PING(value). */
export const encodePong = (value: number): Uint8Array => withWord(RETURN_PATH.pong, value);
/**
 * Allows the source's QEMU to stop its guest. QEMU stops the guest once its own limits, such as the downtime, allow
 * that as well (8.1 and later, capability switchover-ack).
 */
export const encodeSwitchoverAck = (): Uint8Array => Uint8Array.of(0, RETURN_PATH.switchoverAck, 0, 0);

/**
 * Says that the destination goes on after a broken post-copy. The source's QEMU then sends every page that no bitmap
 * has marked as present at the destination.
 */
export const encodeResumeAck = (): Uint8Array => withWord(RETURN_PATH.resumeAck, 1);

/**
 * Answers RECV_BITMAP. QEMU sends the pages whose bits are not set, whatever it sent before.
 * @param bits a bit for each page of the block: bit i % 8 of byte i / 8 is set where the destination has page i
 * @throws RangeError when there are too few bits
 */
export function encodeReceivedPages(
  { name, byteLength }: { readonly name: string; readonly byteLength: number },
  bits: Uint8Array,
): Uint8Array {
  const pageCount = byteLength / PAGE_SIZE;
  const bitsBytes = Math.ceil(pageCount / 8);
  if (bits.length < bitsBytes) throw new RangeError(`${bits.length} bytes of bits for ${pageCount} pages`);
  const block = Buffer.from(name, "latin1");
  const bitmapAt = 4 + 1 + block.length + 8;
  const bitmapBytes = Math.ceil(pageCount / 64) * 8;
  const message = new Uint8Array(bitmapAt + bitmapBytes + 8);
  const view = new DataView(message.buffer);
  view.setUint16(0, RETURN_PATH.recvBitmap);
  view.setUint16(2, 1 + block.length);
  message[4] = block.length;
  message.set(block, 5);
  putUint64(view, bitmapAt - 8, bitmapBytes);
  message.set(bits.subarray(0, bitsBytes), bitmapAt);
  view.setUint32(bitmapAt + bitmapBytes, BITMAP_END_HIGH);
  view.setUint32(bitmapAt + bitmapBytes + 4, BITMAP_END_LOW);
  return message;
}

function withWord(type: number, value: number): Uint8Array {
  const message = new Uint8Array(8);
  const view = new DataView(message.buffer);
  view.setUint16(0, type);
  view.setUint16(2, 4);
  view.setUint32(4, value);
  return message;
}

/** Bytes of a request without a name: head, offset and length. */
const REQUEST = 4 + 12;
/** The most bytes of a request that names its block; one byte has the length of the name. */
const REQUEST_BYTES_MAX = REQUEST + 1 + 255;
/** The most pages of a request, whose length in bytes has 32 bits. */
const REQUEST_PAGES_MAX = Math.floor((2 ** 32 - 1) / PAGE_SIZE);

/**
 * Gathers requests for pages, to be written to the source's QEMU. That QEMU sends requested pages ahead of the others,
 * and knows by itself which of them it has sent already. A request names its block only when the request before was for
 * another block (REQ_PAGES_ID instead of REQ_PAGES).
 */
export class PageRequests {
  private readonly blocks: BlockTable;
  private bytes = new Uint8Array(4096);
  private view = new DataView(this.bytes.buffer);
  private length = 0;
  /** The block of the last request. */
  private block: TableBlock | undefined;

  /** @param blocks in the order of the stream, in which pages are numbered */
  constructor(blocks: readonly { readonly name: string; readonly byteLength: number }[]) {
    this.blocks = new BlockTable(blocks);
  }

  /** True when there is nothing to take. */
  get isEmpty(): boolean {
    return this.length === 0;
  }

  /**
   * Requests the pages [firstPage, firstPage + pageCount), in any blocks.
   * @throws RangeError when there are no such pages
   */
  add(firstPage: number, pageCount: number): void {
    let page = firstPage;
    const end = firstPage + pageCount;
    while (page < end) {
      const present = this.block;
      const same = holds(present, page);
      const block = same ? present : this.blocks.find(page);
      const until = Math.min(end, block.endPage, page + REQUEST_PAGES_MAX);
      this.request(block, page, until - page, same);
      page = until;
    }
  }

  /** @returns the requests that were gathered since the last call, as bytes of their own */
  take(): Uint8Array {
    const taken = this.bytes.slice(0, this.length);
    this.length = 0;
    return taken;
  }

  private request(block: TableBlock, page: number, pageCount: number, same: boolean): void {
    if (this.bytes.length - this.length < REQUEST_BYTES_MAX) this.grow();
    const { view, length: at } = this;
    const offset = (page - block.firstPage) * PAGE_SIZE;
    view.setUint16(at, same ? RETURN_PATH.reqPages : RETURN_PATH.reqPagesId);
    view.setUint16(at + 2, same ? 12 : 13 + block.name.length);
    putUint64(view, at + 4, offset);
    view.setUint32(at + 12, pageCount * PAGE_SIZE);
    this.length += REQUEST;
    if (same) return;
    this.bytes[this.length] = block.name.length;
    this.bytes.set(block.name, this.length + 1);
    this.length += 1 + block.name.length;
    this.block = block;
  }

  private grow(): void {
    const larger = new Uint8Array(2 * this.bytes.length);
    larger.set(this.bytes);
    this.bytes = larger;
    this.view = new DataView(larger.buffer);
  }
}
