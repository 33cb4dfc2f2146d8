/**
 * Takes the stream of a source QEMU whose post-copy was broken and goes on. PostcopyCapture takes the pages of this
 * stream as it takes those of a post-copy that was not broken. There are two kinds of such streams: QEMU goes on where
 * its stream broke, or QEMU has left its migration and sends everything again.
 */
import type { StreamLayout } from "../../shared/protocol/ownership.ts";
import { encodeReceivedPages, encodeResumeAck } from "../../shared/qemu/return-path/return-path.ts";
import type { PlacedBlock } from "../../shared/qemu/stream/ram-blocks.ts";
import type { ResumedSink } from "../../shared/qemu/stream/resumed-reader.ts";
import type { PageSink, RamSetup, StreamSink } from "../../shared/qemu/stream/stream-reader.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import type { PostcopyCapture } from "../postcopy/postcopy-capture.ts";
import type { PrecopyCapture } from "./precopy-capture.ts";

/** Hands the pages of a resumed stream, and its end, to PostcopyCapture. */
class ResumedPages implements PageSink {
  protected readonly postcopy: PostcopyCapture;

  constructor(postcopy: PostcopyCapture) {
    this.postcopy = postcopy;
  }

  page(page: number, at: number): boolean {
    return this.postcopy.page(page, at);
  }
  zeroPage(page: number): boolean {
    return this.postcopy.zeroPage(page);
  }
  partEnd(): boolean {
    return this.postcopy.partEnd();
  }
  ramEnd(): void {
    this.postcopy.ramEnd();
  }
  end(): void {
    this.postcopy.end();
  }
}

/**
 * Takes the stream of a QEMU that goes on where its stream broke. QEMU asks which pages the destination has, and sends
 * the rest.
 */
export class ResumedStreamSink extends ResumedPages implements ResumedSink {
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
}

/**
 * Takes the stream of a QEMU that has left its migration, with the guest paused, and sends everything again.
 * PostcopyCapture drops the pages that are not missing; the bytes beside the pages are dropped here, since the
 * destination has them.
 */
export class RestartedStreamSink extends ResumedPages implements StreamSink {
  private readonly capture: PrecopyCapture;

  constructor(capture: PrecopyCapture, postcopy: PostcopyCapture) {
    super(postcopy);
    this.capture = capture;
  }

  prologue(): void {}
  layout(setup: RamSetup): void {
    this.capture.checkBlocks(setup);
  }
  stopped(): void {}
  device(): void {}
}

const complement = (byte: number): number => ~byte & 255;

/** @returns the list of RAM blocks that the broken stream had */
export const setupOf = ({ ramSectionId, blocks }: StreamLayout) => ({
  ramSectionId,
  blocks: blocks.map((block) => ({ ...block, pageSize: PAGE_SIZE })),
});
