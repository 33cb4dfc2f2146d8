/**
 * What a source QEMU says on a stream that was taken up: it asks what the destination has, is answered with what this agent
 * knows of that, and sends the rest; the pages go the way that they go in any post-copy.
 */
import type { StreamLayout } from "../../shared/protocol/ownership.ts";
import { encodeReceivedPages, encodeResumeAck } from "../../shared/qemu/return-path/return-path.ts";
import type { PlacedBlock } from "../../shared/qemu/stream/ram-blocks.ts";
import type { ResumedSink } from "../../shared/qemu/stream/resumed-reader.ts";
import type { RamSetup, StreamSink } from "../../shared/qemu/stream/stream-reader.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import type { PostcopyCapture } from "../postcopy/postcopy-capture.ts";
import type { PrecopyCapture } from "./precopy-capture.ts";

export class ResumedStreamSink implements ResumedSink {
  private readonly capture: PrecopyCapture;
  private readonly postcopy: PostcopyCapture;

  constructor(capture: PrecopyCapture, postcopy: PostcopyCapture) {
    this.capture = capture;
    this.postcopy = postcopy;
  }

  ping(value: number): void {
    this.postcopy.ping(value);
  }
  bitmapWanted(block: PlacedBlock): void {
    const missing = this.postcopy.awaitedBits(block.firstPage, block.byteLength / PAGE_SIZE);
    this.postcopy.answer(encodeReceivedPages(block, missing.map(complement)));
  }
  resumed(): void {
    this.postcopy.answer(encodeResumeAck());
    this.postcopy.askOn();
  }
  page(page: number, at: number): boolean {
    return this.capture.page(page, at);
  }
  zeroPage(page: number): boolean {
    return this.capture.zeroPage(page);
  }
  partEnd(): boolean {
    return this.capture.partEnd();
  }
  ramEnd(): void {
    this.capture.ramEnd();
  }
  end(): void {
    this.capture.end();
  }
}

/**
 * A stream of a source QEMU that had left its migration, with the guest paused: it begins with everything that it has, and
 * what the destination does not miss is left out.
 */
export class RestartedStreamSink implements StreamSink {
  private readonly capture: PrecopyCapture;

  constructor(capture: PrecopyCapture) {
    this.capture = capture;
  }

  prologue(): void {}
  layout(setup: RamSetup): void {
    this.capture.checkBlocks(setup);
  }
  page(page: number, at: number): boolean {
    return this.capture.page(page, at);
  }
  zeroPage(page: number): boolean {
    return this.capture.zeroPage(page);
  }
  partEnd(): boolean {
    return this.capture.partEnd();
  }
  stopped(): void {}
  ramEnd(): void {
    this.capture.ramEnd();
  }
  device(): void {}
  end(): void {
    this.capture.end();
  }
}

const complement = (byte: number): number => ~byte & 255;

/** As the stream that broke told it. */
export const setupOf = ({ ramSectionId, blocks }: StreamLayout) => ({
  ramSectionId,
  blocks: blocks.map((block) => ({ ...block, pageSize: PAGE_SIZE })),
});
