/**
 * Turns frames into QEMU's stream. A frame is decompressed, checked, and written as a RAM section or verbatim, in
 * strict sequence. A delta is passed on as an XBZRLE record, which QEMU decodes in place, so no page is kept here.
 *
 *     frame ──> one frame buffer ──records──> output buffers ──> QEMU's socket ──> ack
 *
 * The memory is bounded by the buffers: when QEMU takes no more, the channel is not read.
 */
import { PageFrameReader, type RecordSink } from "../../shared/codec/page-frame.ts";
import { MigrationFault } from "../../shared/fault.ts";
import { MemoryLayout } from "../../shared/page/geometry.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { describeBlocks } from "../../shared/protocol/handshake.ts";
import type { RamBlock } from "../../shared/protocol/messages.ts";
import type { Frame } from "../../shared/protocol/stream-messages.ts";
import type { StreamWriter } from "../../shared/qemu/stream/stream-writer.ts";
import { address, PAGE_SIZE } from "../../shared/units.ts";
import { AckBatcher, type AckLimits } from "./ack-batcher.ts";
import { copyOf, FrameOpener } from "./frame-opener.ts";
import { invalid } from "./invalid-stream.ts";
import { OutputBuffers } from "./output-buffers.ts";
import { PostcopyPages } from "./postcopy-pages.ts";
import type { ReplayOptions } from "./replay-options.ts";
import { StreamOrder } from "./stream-order.ts";

/**
 * How many frames the source may be beyond the contract's credit. The source counts a frame that is being compressed
 * with the length that it expects. So it may be beyond the credit by as many frames as it has buffers (FRAME_BUFFERS of
 * agent-source/send/source-memory.ts), and one more; this limit is above that. With a lower one an honest source would
 * be refused.
 */
const FRAMES_BEYOND_CREDIT = 16;
/** A frame that was written as a whole. */
interface Written {
  readonly sequence: number;
  readonly frameKind: Frame["frameKind"];
  /** The length of the bodies of all frames up to this one, bytes. */
  readonly appliedBytes: number;
  /** The value of Replay.generation when the frame was begun: how often the source had begun its stream again. */
  readonly generation: number;
}

/** Writes the frames of one transfer stream to one QEMU. */
export class Replay implements RecordSink {
  /** The number of the last frame that was taken. */
  sequence = 0;
  private readonly parts: ReplayOptions;
  private readonly kernels: PageKernels;
  private readonly memory: Uint8Array;
  private readonly writer: StreamWriter;
  private readonly outputs: OutputBuffers<Written>;
  private readonly opener: FrameOpener;
  /** The frames that have come and were not begun. */
  private readonly queue: Frame[] = [];
  private reader: PageFrameReader | undefined;
  private ramSectionId = 0;
  private pageCount = 0;
  /** The frame that is being written. */
  private current: Frame | undefined;
  /** How many bytes of a verbatim frame are still to be written. */
  private verbatimLeft = 0;
  /** The length of the bodies of all frames that were written, as they were on the link, bytes. */
  private appliedBytes = 0;
  /** Bytes of the frames in `queue` and `current`. */
  private waitingBytes = 0;
  /** How often the source has begun its stream again. A frame that came before is not acknowledged any more. */
  private generation = 0;
  /** The value of `generation` when `current` was begun. */
  private currentGeneration = 0;
  private readonly part = new StreamOrder();
  private readonly acks: AckBatcher;
  /** Post-copy's pages; set by the layout where post-copy may follow. */
  postcopy: PostcopyPages | undefined;
  /** The bytes that QEMU is to get for the current frame of discards or of the package. */
  private commands: Uint8Array | undefined;
  /** How many bytes of `commands` were written. */
  private commandsAt = 0;
  /** True while QEMU does not take what has come, so that the channel is not read. */
  isHeldBack = false;
  /** True once a frame was refused: nothing more is written then. */
  private broken = false;
  /** True where a test wants a byte changed (`corruptPage`), until that was done. */
  private corrupt: boolean;
  /** One callback for each drained() that waits. */
  private idleWaiters: (() => void)[] = [];

  constructor(parts: ReplayOptions) {
    this.parts = parts;
    this.corrupt = parts.corruptPage;
    this.acks = new AckBatcher((ack) => void parts.channel.send({ kind: "ack", ...ack }), parts.clock);
    const outputsAt = Math.ceil(FrameOpener.regionBytes(parts.contract.frameBytes) / PAGE_SIZE) * PAGE_SIZE;
    this.kernels = parts.createKernels(outputsAt + OutputBuffers.regionBytes);
    this.memory = this.kernels.memory;
    this.opener = new FrameOpener(this.kernels, parts.contract);
    const { socket, clock } = parts;
    const onTaken = (frame: Written | undefined): void => this.taken(frame);
    this.outputs = new OutputBuffers({ kernels: this.kernels, at: outputsAt, socket, clock, onTaken });
    this.writer = this.outputs.writer;
  }

  /** When QEMU took bytes the last time, microseconds on this host's clock; 0 before the first bytes. */
  get lastByteAtUs(): number {
    return this.outputs.lastByteAtUs;
  }

  /**
   * Takes the RAM blocks of the stream, which must be those of the waiting QEMU.
   * @throws MigrationFault `peer-invalid`
   */
  layout(blocks: readonly RamBlock[], ramSectionId: number): void {
    if (this.reader !== undefined) throw invalid("a second layout");
    const differing = describeBlocks(blocks, this.parts.contract.ramBlocks);
    if (differing !== "") throw invalid(`a layout that is not the one agreed on: ${differing}`);
    const layout = new MemoryLayout(blocks);
    this.reader = new PageFrameReader(this.kernels, layout.pageCount, this.parts.contract.codecs.includes("xbzrle"));
    this.writer.layout(blocks);
    this.ramSectionId = ramSectionId;
    if (!this.parts.contract.postcopy) return;
    const { clock, channel } = this.parts;
    const { pageCount } = layout;
    this.postcopy = new PostcopyPages({ blocks, pageCount, clock, send: (message) => void channel.send(message) });
    this.pageCount = pageCount;
  }

  /**
   * Begins at the last pages of a post-copy that is resumed.
   * @param pages knows which pages QEMU misses
   */
  resume(blocks: readonly RamBlock[], ramSectionId: number, pages: PostcopyPages): void {
    this.layout(blocks, ramSectionId);
    this.postcopy = pages;
    this.part.packaged();
    this.reader = new PageFrameReader(this.kernels, this.pageCount, false);
  }

  /**
   * Takes the next frame.
   * @throws MigrationFault `peer-invalid`, `checksum-mismatch`
   */
  take(frame: Frame): void {
    if (frame.sequence !== this.sequence + 1) throw invalid(`frame ${frame.sequence} after frame ${this.sequence}`);
    this.sequence = frame.sequence;
    this.waitingBytes += frame.body.length;
    const { creditWindowBytes } = this.parts.contract;
    if (this.waitingBytes > creditWindowBytes + FRAMES_BEYOND_CREDIT * this.opener.bytesMax)
      throw invalid(
        `${this.waitingBytes} bytes that still wait for QEMU; the agreed credit is ${creditWindowBytes} bytes`,
      );
    this.queue.push(frame);
    this.run();
    // the link uses the memory of a lent frame again when this call returns, so a lent frame that still waits is copied
    if (frame.isLent === true && this.queue.at(-1) === frame) this.queue[this.queue.length - 1] = copyOf(frame);
  }

  /**
   * Called when the source begins its stream again, with frame 1. Frames that were not begun are dropped. Pages that
   * were given to QEMU count as placed.
   */
  restart(): void {
    this.queue.length = 0;
    this.waitingBytes = this.current?.body.length ?? 0;
    this.sequence = 0;
    this.appliedBytes = 0;
    this.acks.forget();
    this.generation++;
  }

  /** Resolves when every frame that was taken so far was written to QEMU's socket. */
  drained(): Promise<void> {
    if (this.isIdle) return Promise.resolve();
    return new Promise((resolve) => this.idleWaiters.push(resolve));
  }

  // the methods of RecordSink, which take the records of the current frame

  get hasRoom(): boolean {
    return this.outputs.hasRoom;
  }

  zeroPage(page: number): void {
    this.postcopy?.placed(page, false);
    this.writer.zeroPage(page);
  }

  page(page: number, at: number): void {
    this.postcopy?.placed(page, false);
    this.writer.page(page, at);
    if (!this.corrupt) return;
    this.corrupt = false;
    this.memory[this.writer.position - 1]! ^= 1;
  }

  delta(page: number, at: number, length: number): void {
    this.postcopy?.placed(page, true);
    this.writer.delta(page, at, length);
  }

  // the end of RecordSink

  /** True when no frame waits, and QEMU has taken everything that was written. */
  private get isIdle(): boolean {
    return this.queue.length === 0 && this.current === undefined && this.outputs.writesPending === 0;
  }

  /** Writes as much as QEMU takes. */
  private run(): void {
    if (this.broken) return;
    try {
      this.work();
    } catch (thrown) {
      // QEMU gives an output buffer back later. Nothing that follows the refused record may be written to it then
      this.broken = true;
      throw thrown;
    }
  }

  /** Writes frames until there are none, or QEMU takes no more. While QEMU takes no more, the channel is paused. */
  private work(): void {
    while (true) {
      if (this.current === undefined) {
        const frame = this.queue.shift();
        if (frame === undefined) break;
        this.open(frame);
      }
      if (!this.advance()) {
        if (!this.isHeldBack) this.parts.channel.pause();
        this.isHeldBack = true;
        return;
      }
    }
    if (!this.isHeldBack) return;
    this.isHeldBack = false;
    this.parts.channel.resume();
  }

  /** Decompresses and checks a frame, and begins it. */
  private open(frame: Frame): void {
    const { frameKind, rawLength } = frame;
    this.opener.open(frame);
    this.current = frame;
    this.currentGeneration = this.generation;
    const isLast = this.part.name === "lastPages";
    this.part.enter(frameKind);
    switch (frameKind) {
      case "verbatim":
        if (isLast) this.postcopy?.checkEnd();
        this.verbatimLeft = rawLength;
        return;
      case "pages":
        if (this.reader === undefined) throw invalid("pages before the layout");
        this.reader.open(address(this.opener.at), rawLength);
        this.started = false;
        return;
      case "discards":
      case "package":
        this.openPostcopy(frameKind, this.memory.subarray(this.opener.at, this.opener.at + rawLength));
    }
  }

  /** Begins a frame of discards or of the package. */
  private openPostcopy(kind: "discards" | "package", body: Uint8Array): void {
    const { postcopy } = this;
    if (postcopy === undefined) throw invalid(`a frame of kind ${kind}: post-copy was not agreed on`);
    this.commands = kind === "discards" ? postcopy.discards(body) : postcopy.package(body);
    this.commandsAt = 0;
    if (!postcopy.isActive) return;
    this.part.packaged();
    // QEMU takes no XBZRLE after the package
    this.reader = new PageFrameReader(this.kernels, this.pageCount, false);
  }

  /** True once the RAM section of the current frame was begun. */
  private started = false;

  /**
   * Writes as much of the current frame as there is room for.
   * @returns true when the frame is finished
   */
  private advance(): boolean {
    const frame = this.current!;
    if (this.commands !== undefined) {
      this.commandsAt = this.outputs.copy(this.commands, this.commandsAt);
      if (this.commandsAt < this.commands.length) return false;
      this.commands = undefined;
    } else if (frame.frameKind === "verbatim") {
      const end = this.opener.at + frame.rawLength;
      this.verbatimLeft = end - this.outputs.move(end - this.verbatimLeft, end);
      if (this.verbatimLeft > 0) return false;
    } else {
      if (!this.started) {
        if (!this.hasRoom) return false;
        this.writer.partStart(this.ramSectionId);
        this.started = true;
      }
      if (!this.reader!.drain(this) || !this.hasRoom) return false;
      this.writer.partEnd(this.ramSectionId);
    }
    this.current = undefined;
    this.waitingBytes -= frame.body.length;
    if (this.currentGeneration !== this.generation) {
      this.outputs.flush();
      return true;
    }
    this.appliedBytes += frame.body.length;
    const { sequence, frameKind } = frame;
    this.outputs.flush({ sequence, frameKind, appliedBytes: this.appliedBytes, generation: this.generation });
    return true;
  }

  /**
   * Called when QEMU has taken an output buffer: acknowledges the frame that has ended in the buffer, and writes on.
   */
  private taken(frame: Written | undefined): void {
    if (frame?.frameKind === "package" && this.postcopy?.isActive) this.postcopy.packageWritten(this.lastByteAtUs);
    if (frame?.generation === this.generation) {
      const { sequence, appliedBytes } = frame;
      this.acks.applied({ sequence, appliedBytes }, this.haste(frame.frameKind));
    }
    this.continue();
  }

  /** Tells how late the acknowledgement of a frame of this kind may be. */
  private haste(kind: Frame["frameKind"]): AckLimits {
    if (kind !== "pages") return "at once";
    return this.postcopy?.isActive === true ? "soon" : "late";
  }

  /** Writes on after QEMU has taken an output buffer, and resolves the calls of drained() when all is written. */
  private continue(): void {
    try {
      this.run();
    } catch (thrown) {
      this.parts.onFault(MigrationFault.from(thrown));
    }
    if (this.isIdle) for (const resolve of this.idleWaiters.splice(0)) resolve();
  }
}
