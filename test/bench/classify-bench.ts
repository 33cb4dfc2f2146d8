/**
 * Measures capture, classification and encoding in memory: PAGE records go through the stream reader into the
 * scheduler, and the frames that the scheduler makes are thrown away. The peer copies the pages once, which is the
 * least that any capture has to do.
 */
import { PrecopyScheduler } from "../../agent-source/send/precopy-scheduler.ts";
import { frameBufferBytes } from "../../shared/codec/page-frame.ts";
import { KERNEL_RESERVED_BYTES } from "../../shared/page/kernel-memory.ts";
import { StreamReader, type StreamSink } from "../../shared/qemu/stream/stream-reader.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { address, PAGE_SIZE, pageIndex } from "../../shared/units.ts";
import { FRAME_BYTES, GUEST_KINDS, type GuestKind, prologue, streamBytes, writePass } from "./guest-pages.ts";
import { against, contest, type Group, type Measurement } from "./measure.ts";

/** How much of the stream is read at once: as much as in one read of the intake. */
const READ_BYTES = 256 << 10;
const WINDOW_BYTES = 1 << 20;
const ROUNDS = { settle: 6, rounds: 15 };

/** Captures the pages that it is given, and makes frames of them at the end of a section, as PrecopyCapture does. */
class CaptureSink implements StreamSink {
  /** How many frames were made. */
  frames = 0;
  private readonly scheduler: PrecopyScheduler;
  private readonly frameAt: number;

  constructor(scheduler: PrecopyScheduler, frameAt: number) {
    this.scheduler = scheduler;
    this.frameAt = frameAt;
  }
  prologue(): void {}
  layout(): void {}
  page(page: number, at: number): boolean {
    return this.scheduler.capture(pageIndex(page), address(at));
  }
  zeroPage(page: number): boolean {
    return this.scheduler.captureZero(pageIndex(page));
  }
  partEnd(): boolean {
    while (this.scheduler.hasWork) if (this.scheduler.fill(address(this.frameAt)) > 0) this.frames++;
    return true;
  }
  stopped(): void {}
  ramEnd(): void {}
  device(): void {}
  end(): void {}
}

export interface CaptureRig {
  readonly scheduler: PrecopyScheduler;
  readonly sink: CaptureSink;
  readonly pages: number;
  /** Captures one pass over the guest. The two versions of the pages alternate. */
  pass(): void;
  /** Copies the pages of the next pass once, to another place in the memory. */
  copyPages(): void;
}

/** Puts two passes over a guest of `pages` pages into memory, with everything that captures and encodes them. */
export function captureRig(kind: GuestKind, pages: number): CaptureRig {
  const options = {
    pageCount: pages,
    delta: true,
    reorder: true,
    pendingSlots: 4096,
    baseSlots: pages,
    frameBytes: FRAME_BYTES,
  };
  const passBytes = Math.ceil(streamBytes(pages) / PAGE_SIZE) * PAGE_SIZE;
  const passAt = [KERNEL_RESERVED_BYTES, KERNEL_RESERVED_BYTES + passBytes] as const;
  const window = passAt[1] + passBytes;
  const frameAt = window + WINDOW_BYTES;
  const region = frameAt + Math.ceil(frameBufferBytes(FRAME_BYTES) / PAGE_SIZE) * PAGE_SIZE;
  const kernels = loadKernels(region + PrecopyScheduler.regionBytes(options));
  const { memory } = kernels;
  const scheduler = new PrecopyScheduler(kernels, address(region), options);
  const sink = new CaptureSink(scheduler, frameAt);
  const reader = new StreamReader(memory, sink);
  const head = prologue(pages);
  memory.set(head, window);
  reader.consume(window, window + head.length);
  const write = (version: 0 | 1): number => writePass({ memory, at: passAt[version], pages, kind, version });
  const ends = [write(0), write(1)] as const;
  let passes = 0;
  const pass = (): void => {
    const version = (passes++ & 1) as 0 | 1;
    const end = ends[version];
    for (let at = passAt[version] as number; at < end; ) at = reader.consume(at, Math.min(end, at + READ_BYTES));
  };
  const copyPages = (): void => {
    const from = passAt[passes & 1]!;
    for (let page = 0; page < pages; page++)
      kernels.copy(address(window), address(from + page * (PAGE_SIZE + 8)), PAGE_SIZE);
  };
  return { scheduler, sink, pages, pass, copyPages };
}

const PAGES = 16384;

function measure(kind: GuestKind): Omit<Measurement, "group" | "name"> {
  const { scheduler, pass, copyPages } = captureRig(kind, PAGES);
  pass();
  const bytes = PAGES * PAGE_SIZE;
  const [ours, theirs] = contest({ bytes, ...ROUNDS }, pass, copyPages);
  const { total, skipped } = scheduler;
  const captured = scheduler.pages.captured;
  const sent = (total.zeroBytes + total.fullBytes + total.deltaBytes) / captured;
  const note = `${sent.toFixed(1)} bytes a page, ${((100 * skipped) / captured).toFixed(0)} % skipped`;
  return { ...against(ours, "copy", theirs), note };
}

export const classifyGroup: Group = {
  name: "classify",
  async run(report, wanted) {
    for (const kind of GUEST_KINDS) {
      const name = `capture and encode, ${kind} pages`;
      if (wanted(name)) report({ group: "classify", name, ...measure(kind) });
    }
  },
};
