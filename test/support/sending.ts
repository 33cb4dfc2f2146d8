/**
 * Makes a source's scheduler and sender in memory. The pages that a test captures become frames, which are kept, and
 * can be read as a destination would read them.
 */

import { LinkMeter } from "../../agent-source/link/link-meter.ts";
import { FrameSender } from "../../agent-source/send/frame-sender.ts";
import { Pacer } from "../../agent-source/send/pacer.ts";
import { PrecopyScheduler } from "../../agent-source/send/precopy-scheduler.ts";
import { createSourceMemory } from "../../agent-source/send/source-memory.ts";
import { CompressionChooser } from "../../shared/codec/chooser.ts";
import { frameBufferBytes, PageFrameReader } from "../../shared/codec/page-frame.ts";
import type { MigrationFault } from "../../shared/fault.ts";
import type { SourceChannel } from "../../shared/link/link.ts";
import { KERNEL_RESERVED_BYTES } from "../../shared/page/kernel-memory.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { FrameKind } from "../../shared/protocol/stream-messages.ts";
import { type Clock, systemClock } from "../../shared/runtime/clock.ts";
import { type Deferred, deferred } from "../../shared/runtime/deferred.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { address, PAGE_SIZE, pageIndex } from "../../shared/units.ts";

export interface SentFrame {
  readonly sequence: number;
  readonly kind: FrameKind;
  readonly body: Buffer;
}

export interface SendingOptions {
  readonly pageCount?: number;
  readonly pendingSlots?: number;
  readonly frameBytes?: number;
  readonly creditWindowBytes?: number;
  /** True if frames of pages wait until the test says that they were compressed. @default false */
  readonly compressed?: boolean;
  /** Makes the memory. @default new memory, which is zero */
  readonly createKernels?: (byteLength: number) => PageKernels;
  /** @default the host's clock */
  readonly clock?: Clock;
  /** Called when pages have left the arena. */
  readonly onRoom?: () => void;
}

/** How many bytes of a page are its value. The rest is the same in all pages. */
const VALUE_BYTES = 64;
const FRAME_AT = KERNEL_RESERVED_BYTES;

const fail = (fault: MigrationFault): never => {
  throw fault;
};

/** Makes a channel that keeps what is sent. */
const channelInto = (frames: SentFrame[]): Pick<SourceChannel, "send" | "drained"> => ({
  send: (message, taken) => {
    if (message.kind !== "frame") throw new Error(`${message.kind} was sent`);
    frames.push({ sequence: message.sequence, kind: message.frameKind, body: Buffer.from(message.body) });
    if (taken !== undefined) queueMicrotask(taken);
    return true;
  },
  drained: () => Promise.resolve(),
});

export function sending({
  pageCount = 400,
  pendingSlots = 600,
  frameBytes = 4 * PAGE_SIZE,
  creditWindowBytes = 64 << 20,
  compressed = false,
  createKernels = loadKernels,
  clock = systemClock,
  onRoom = () => undefined,
}: SendingOptions = {}) {
  const options = { pageCount, delta: true, reorder: true, pendingSlots, baseSlots: 100, frameBytes };
  const { kernels, buffers, region, window } = createSourceMemory(options, createKernels);
  const scheduler = new PrecopyScheduler(kernels, region, options);
  const meter = new LinkMeter();
  const frames: SentFrame[] = [];
  const compressing: Deferred<number>[] = [];
  const sender = new FrameSender({
    ...{ kernels, buffers, frameBytes, source: scheduler, pages: scheduler.pages },
    // the sender uses only these two methods of a channel
    channel: channelInto(frames) as SourceChannel,
    compress: () => {
      const one = deferred<number>();
      compressing.push(one);
      return one.promise;
    },
    chooser: new CompressionChooser(compressed ? 1 : "off", 1),
    meter,
    pacer: new Pacer(0),
    clock,
    creditWindowBytes,
    onSent: () => undefined,
    onRoom,
    onFault: fail,
  });
  /**
   * Puts a page that begins with this value into the window in which QEMU's stream is read. Two such pages differ
   * little.
   * @returns the address of the page
   */
  const put = (value: number) => {
    kernels.memory.fill(0x55, window, window + PAGE_SIZE);
    kernels.memory.fill(value, window, window + VALUE_BYTES);
    return window;
  };
  return {
    kernels,
    scheduler,
    meter,
    sender,
    frames,
    window,
    put,
    capture: (page: number, value: number): boolean => scheduler.capture(pageIndex(page), put(value)),
    /** Acknowledges all frames that were sent. */
    acknowledge: () => sender.acknowledge(frames.at(-1)?.sequence ?? 0, sender.sentBytes),
    /** Ends the compression of the oldest frame that waits for it. The frame has not become smaller. */
    compressOne: () => compressing.shift()?.resolve(-1),
    compressing,
  };
}

/** Waits for a turn of the event loop, in which pending callbacks run. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A RecordSink that is also given the memory of the frame. */
export interface PageSink {
  zeroPage(page: number): void;
  page(page: number, at: number, memory: Uint8Array): void;
  delta(page: number, at: number, length: number, memory: Uint8Array): void;
}

/** Reads the body of a frame of pages. */
export function readPages(body: Buffer, pageCount: number, sink: PageSink, deltas: boolean): void {
  const kernels = loadKernels(FRAME_AT + frameBufferBytes(body.length));
  const { memory } = kernels;
  memory.set(body, FRAME_AT);
  const reader = new PageFrameReader(kernels, pageCount, deltas);
  reader.open(address(FRAME_AT), body.length);
  reader.drain({
    hasRoom: true,
    zeroPage: (page) => sink.zeroPage(page),
    page: (page, at) => sink.page(page, at, memory),
    delta: (page, at, length) => sink.delta(page, at, length, memory),
  });
}

/** The numbers of a frame's pages, in the order of the frame. */
export function pagesOf(frame: SentFrame | undefined, pageCount = 400): number[] {
  const pages: number[] = [];
  const note = (page: number): void => void pages.push(page);
  if (frame?.kind === "pages") readPages(frame.body, pageCount, { zeroPage: note, page: note, delta: note }, true);
  return pages;
}
