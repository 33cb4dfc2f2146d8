/**
 * The source agent's end of a simulated migration, for the warm-up: it sends the frames of a guest that does not exist,
 * in precopy and in post-copy. It has the content of only a few pages, and each page of the guest has one of these
 * contents.
 */
import { encodeDiscards } from "../../shared/codec/discard-frame.ts";
import { frameBufferBytes, PageFrameWriter } from "../../shared/codec/page-frame.ts";
import type { Channel } from "../../shared/link/link.ts";
import { KERNEL_RESERVED_BYTES } from "../../shared/page/kernel-memory.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { PageSet } from "../../shared/page/page-set.ts";
import { changePages, simulatedBlocks, simulatePages } from "../../shared/page/simulated-pages.ts";
import type { RamBlock } from "../../shared/protocol/messages.ts";
import type {
  DestinationMessage,
  FrameCodec,
  FrameKind,
  SourceMessage,
} from "../../shared/protocol/stream-messages.ts";
import { encodeAdvise, encodePostcopyEnd } from "../../shared/qemu/stream/command-encoder.ts";
import { encodeStreamStart } from "../../shared/qemu/stream/stream-writer.ts";
import { type Deferred, deferred } from "../../shared/runtime/deferred.ts";
import { ZstdPool } from "../../shared/runtime/zstd/zstd-pool.ts";
import { address, PAGE_SIZE } from "../../shared/units.ts";

const RAM_SECTION = 2;
/** How many different contents pages have. */
const CONTENTS = 16;
const ZSTD_LEVEL = -5;
/** How many frames may be in flight. */
const FRAMES_ON_THEIR_WAY = 8;
/** The length of the simulated device state, bytes. */
const PACKAGE_BYTES = 30_000;
/** The address of the bases: the contents to which the deltas refer. */
const BASES_AT = KERNEL_RESERVED_BYTES;
const CONTENTS_AT = BASES_AT + CONTENTS * PAGE_SIZE;
const CHECKSUM_AT = CONTENTS_AT + CONTENTS * PAGE_SIZE;
const FRAME_AT = CHECKSUM_AT + 64;

/** Sends a simulated migration by a channel. */
export class SimulatedSource {
  readonly blocks: readonly RamBlock[];
  private readonly pageCount: number;
  private readonly frameBytes: number;
  private readonly channel: Pick<Channel<SourceMessage, DestinationMessage>, "send" | "receive">;
  private readonly kernels: PageKernels;
  private readonly writer: PageFrameWriter;
  private readonly zstd: ZstdPool;
  /** Where the compressed form of a frame goes. */
  private readonly encodedAt: number;
  /** The room for the compressed form of a frame, bytes. */
  private readonly encodedBytes: number;
  private sequence = 0;
  private acknowledged = 0;
  /** Resolved with the next acknowledgement; undefined before any frame has waited for one. */
  private room: Deferred<void> | undefined;
  /** Counts the changes of the contents. */
  private version = 0;

  constructor(
    channel: Pick<Channel<SourceMessage, DestinationMessage>, "send" | "receive">,
    createKernels: (byteLength: number) => PageKernels,
    { pageCount, frameBytes }: { readonly pageCount: number; readonly frameBytes: number },
  ) {
    this.channel = channel;
    this.pageCount = pageCount;
    this.frameBytes = frameBytes;
    this.blocks = simulatedBlocks(pageCount);
    this.encodedBytes = frameBufferBytes(frameBytes);
    this.encodedAt = FRAME_AT + this.encodedBytes;
    this.kernels = createKernels(this.encodedAt + this.encodedBytes);
    this.writer = new PageFrameWriter(this.kernels);
    this.zstd = new ZstdPool(this.kernels.memory, 1);
    simulatePages(this.kernels.memory, BASES_AT, CONTENTS);
    simulatePages(this.kernels.memory, CONTENTS_AT, CONTENTS);
    channel.receive((message) => {
      if (message.kind !== "ack") return;
      this.acknowledged = message.sequence;
      this.room?.resolve();
    });
  }

  /** Sends the head of QEMU's stream, and the layout of the guest's RAM blocks. */
  async start(): Promise<void> {
    const head = Buffer.concat(encodeStreamStart("rehearsal", this.blocks, RAM_SECTION, encodeAdvise()));
    await this.bytes("verbatim", head);
    this.channel.send({ kind: "layout", blocks: this.blocks, ramSectionId: RAM_SECTION });
  }

  /** Sends every page, as a zero page where `isZero` is true for it. */
  async firstPass(isZero: (page: number) => boolean): Promise<void> {
    await this.pages(0, this.pageCount, (page) => {
      if (isZero(page)) this.writer.zeroRun(page, 1);
      else this.writer.full(page, address(CONTENTS_AT + (page % CONTENTS) * PAGE_SIZE));
    });
  }

  /** Changes a few words of each content, and sends deltas of these pages. */
  async pass(firstPage: number, pageCount: number): Promise<void> {
    const { kernels, writer } = this;
    changePages(kernels.memory, CONTENTS_AT, CONTENTS, ++this.version);
    await this.pages(firstPage, pageCount, (page) => {
      const at = (page % CONTENTS) * PAGE_SIZE;
      const out = writer.deltaPlace;
      writer.delta(page, kernels.encodeDelta(address(BASES_AT + at), address(CONTENTS_AT + at), out, PAGE_SIZE));
    });
  }

  /** Sends the discards of these pages, the package, the pages themselves, and the end of the stream. */
  async postcopy(firstPage: number, pageCount: number): Promise<void> {
    const missing = new PageSet(this.pageCount);
    missing.addRange(firstPage, pageCount);
    for (const body of encodeDiscards(missing)) await this.bytes("discards", body);
    const device = new Uint8Array(4 + PACKAGE_BYTES);
    new DataView(device.buffer).setUint32(0, PACKAGE_BYTES, true);
    await this.bytes("package", device);
    await this.pages(firstPage, pageCount, (page) =>
      this.writer.full(page, address(CONTENTS_AT + (page % CONTENTS) * PAGE_SIZE)),
    );
    await this.bytes("verbatim", encodePostcopyEnd(RAM_SECTION));
    this.channel.send({ kind: "endOfStream", lastSequence: this.sequence });
  }

  close(): Promise<void> {
    return this.zstd.close();
  }

  /**
   * Sends frames of pages, compressed where that makes them shorter.
   * @param record makes the record of a page
   */
  private async pages(firstPage: number, pageCount: number, record: (page: number) => void): Promise<void> {
    const end = firstPage + pageCount;
    for (let page = firstPage; page < end; ) {
      this.writer.begin(address(FRAME_AT), this.frameBytes);
      while (page < end && this.writer.hasRoom) record(page++);
      const rawLength = this.writer.finish();
      const { frameAt } = this.writer;
      this.kernels.checksum(frameAt, rawLength, address(CHECKSUM_AT));
      const limit = Math.min(rawLength, this.encodedBytes);
      const length = await this.zstd.compress(frameAt, rawLength, this.encodedAt, limit, ZSTD_LEVEL);
      if (length < 0) await this.frame("pages", "none", rawLength, frameAt, rawLength);
      else await this.frame("pages", "zstd", rawLength, this.encodedAt, length);
    }
  }

  /** Sends a frame of other bytes, uncompressed. */
  private async bytes(kind: FrameKind, body: Uint8Array): Promise<void> {
    this.kernels.memory.set(body, FRAME_AT);
    this.kernels.checksum(address(FRAME_AT), body.length, address(CHECKSUM_AT));
    await this.frame(kind, "none", body.length, FRAME_AT, body.length);
  }

  /** Sends a frame whose checksum was computed, and waits while too many frames are in flight. */
  private async frame(
    frameKind: FrameKind,
    codec: FrameCodec,
    rawLength: number,
    at: number,
    length: number,
  ): Promise<void> {
    const { memory } = this.kernels;
    const checksum = memory.slice(CHECKSUM_AT, CHECKSUM_AT + 8);
    const body = memory.slice(at, at + length);
    this.channel.send({ kind: "frame", sequence: ++this.sequence, frameKind, codec, rawLength, checksum, body });
    while (this.sequence - this.acknowledged >= FRAMES_ON_THEIR_WAY) {
      this.room = deferred();
      await this.room.promise;
    }
  }
}
