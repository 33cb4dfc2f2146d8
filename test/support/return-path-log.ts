/**
 * Makes what a destination's QEMU would write on its return path, and records what the reader tells of it, for tests.
 */
import type { ReturnPathSink } from "../../shared/qemu/return-path/return-path-reader.ts";
import { StreamBytes } from "./fake-stream.ts";

export const RETURN_PATH_BLOCKS = [
  { name: "pc.ram", byteLength: 100 * 4096 },
  { name: "pc.bios", byteLength: 8192 },
];

/** Makes the message RECV_BITMAP of a block, with its bitmap. */
export const receivedBitmap = (name: string, bits: Uint8Array): Buffer =>
  new StreamBytes()
    .be16(5)
    .be16(1 + name.length)
    .name(name)
    .be64(bits.length)
    .bytes(bits)
    .bytes(Buffer.from("0123456789abcdef", "hex"))
    .done();

export class ReturnPathLog implements ReturnPathSink {
  readonly log: string[] = [];

  requestPages(firstPage: number, pageCount: number): void {
    this.log.push(`request ${firstPage}+${pageCount}`);
  }
  pong(value: number): void {
    this.log.push(`pong ${value}`);
  }
  shut(error: number): void {
    this.log.push(`shut ${error}`);
  }
  switchoverAck(): void {
    this.log.push("switchoverAck");
  }
  resumeAck(): void {
    this.log.push("resumeAck");
  }
  receivedPages(firstPage: number, pageCount: number, bits: Uint8Array): void {
    for (let i = 0; i < pageCount; i++)
      if ((bits[i >> 3]! & (1 << (i & 7))) !== 0) this.log.push(`received ${firstPage + i}`);
  }
}
