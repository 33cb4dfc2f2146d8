/**
 * Makes the parts of a session and joins them: the memory, the order of pages, the sender of frames, the capture, and
 * the reading of QEMU's stream. It keeps no state of its own. The monitor, the channel and the faults that end a
 * session are in transfer-session.ts. The warm-up builds these parts without a session.
 */

import { cpus } from "node:os";
import { CompressionChooser } from "../../shared/codec/chooser.ts";
import type { MigrationFault } from "../../shared/fault.ts";
import { pageCountOf } from "../../shared/page/geometry.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { postcopyMayFollow } from "../../shared/protocol/strategies.ts";
import { ResumedReader } from "../../shared/qemu/stream/resumed-reader.ts";
import { StreamReader } from "../../shared/qemu/stream/stream-reader.ts";
import { IdleProcessors } from "../../shared/runtime/host/idle-processors.ts";
import { youngCollector } from "../../shared/runtime/v8/return-memory.ts";
import { ZstdPool } from "../../shared/runtime/zstd/zstd-pool.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import { Intake, type StreamParser } from "../capture/intake.ts";
import { SyncPace } from "../capture/sync-pace.ts";
import type { LinkMeter } from "../link/link-meter.ts";
import { PostcopyCapture } from "../postcopy/postcopy-capture.ts";
import { FrameSender } from "../send/frame-sender.ts";
import { Pacer } from "../send/pacer.ts";
import { PrecopyScheduler } from "../send/precopy-scheduler.ts";
import type { SenderParts } from "../send/sender-parts.ts";
import { createSourceMemory, type SourceMemory, WINDOW_BYTES } from "../send/source-memory.ts";
import { CopyObserver } from "../switchover/copy-observer.ts";
import { estimateMs, FIXED_COST_MS } from "../switchover/downtime-estimate.ts";
import { EtaEstimator } from "../switchover/eta.ts";
import type { Decision } from "../switchover/observation.ts";
import { SwitchPolicy } from "../switchover/switch-policy.ts";
import { PrecopyCapture, type PrecopyCaptureOptions } from "./precopy-capture.ts";
import { RestartedStreamSink, ResumedStreamSink, setupOf } from "./resumed-streams.ts";
import { type BuildOptions, HOLD_SHARE_OF_ARENA, logStall, schedulerOptions } from "./session-options.ts";

/** Active push: the most pages that QEMU is asked for ahead of a guest that walks its memory (docs/decisions/0026). */
const PUSH_AHEAD_PAGES = 4096;

/** What the parts tell their session, and what they ask of it. */
export interface SessionEvents {
  readonly meter: LinkMeter;
  /** True while nothing is heard from the destination. */
  readonly linkIsDown: () => boolean;
  /** Called with what the operator should know of how the copy will go on; with an empty text when that is over. */
  readonly onOutlook: (outlook: string) => void;
  /** Called when the policy has decided to switch or to cancel. */
  readonly onDecision: (decision: Decision) => void;
  /** Called in post-copy when the discards and the package are queued to be sent. */
  readonly onPackaged: () => void;
  /** Called when the first byte was read that QEMU wrote with the guest stopped. */
  readonly onStopped: () => void;
  /** Called when QEMU's stream was read to its end. */
  readonly onRead: () => void;
  /** Called when the whole stream was given to the link. */
  readonly onEnd: () => void;
  /** Called when a frame cannot be compressed or given to the link. */
  readonly onFault: (fault: MigrationFault) => void;
  /** Called when QEMU's stream is broken, or QEMU closes it. */
  readonly onQemuFault: (fault: MigrationFault) => void;
}

export interface SessionParts {
  readonly scheduler: PrecopyScheduler;
  readonly chooser: CompressionChooser;
  readonly sender: FrameSender;
  /** Present if post-copy was agreed on. */
  readonly postcopy: PostcopyCapture | undefined;
  readonly capture: PrecopyCapture;
  readonly intake: Intake;
  /** Missing if nothing is compressed. */
  readonly zstd: ZstdPool | undefined;
  /** The session's memory. */
  readonly kernels: PageKernels;
}

export function buildSession(parts: BuildOptions, hooks: SessionEvents): SessionParts {
  const { cx, contract } = parts;
  const options = schedulerOptions(parts);
  const memory = createSourceMemory(options, (byteLength) => kernelsFor(cx, byteLength));
  const scheduler = new PrecopyScheduler(memory.kernels, memory.region, options);
  const { chooser, zstd, compress } = makeCompression(parts, hooks.meter, memory);
  const sender: FrameSender = new FrameSender({
    kernels: memory.kernels,
    buffers: memory.buffers,
    frameBytes: contract.frameBytes,
    source: scheduler,
    pages: scheduler.pages,
    channel: parts.channel,
    compress,
    chooser,
    meter: hooks.meter,
    pacer: new Pacer(cx.call.options.bandwidthBytesPerSecond),
    clock: cx.clock,
    creditWindowBytes: contract.creditWindowBytes,
    onSent: youngCollector(),
    onRoom: () => (postcopy?.isActive === true ? postcopy : capture).roomMade(),
    onFault: hooks.onFault,
  });
  const onEnd = (): void => {
    hooks.onRead();
    void sender.flushed().then(hooks.onEnd);
  };
  const postcopy: PostcopyCapture | undefined = contract.postcopy
    ? new PostcopyCapture({
        memory: memory.kernels.memory,
        scheduler,
        sender,
        pageCount: pageCountOf(parts.ramBlocks),
        aheadPages: PUSH_AHEAD_PAGES,
        byHeat: cx.call.options.reorder,
        answer: (bytes) => intake.answer(bytes),
        onPackaged: () => {
          capture.lastPagesSent();
          hooks.onPackaged();
        },
        resumeIntake: () => intake.resume(),
        onEnd,
      })
    : undefined;
  const capture: PrecopyCapture = makeCapture(parts, hooks, {
    memory,
    scheduler,
    chooser,
    sender,
    resumeIntake: () => intake.resume(),
    onLayout: (setup) => {
      postcopy?.layout(setup);
      parts.channel.send({ kind: "layout", blocks: setup.blocks, ramSectionId: setup.ramSectionId });
    },
    onEnd,
  });
  const reader = makeReader(parts, memory.kernels.memory, capture, postcopy);
  const intake: Intake = makeIntake(parts, hooks, memory, reader, () => capture.mayRead());
  return { scheduler, chooser, sender, postcopy, capture, intake, zstd, kernels: memory.kernels };
}

/** Takes the memory that an earlier session has left, if there is one that is long enough, or makes a new memory. */
const kernelsFor = ({ keptMemory, createKernels }: BuildOptions["cx"], byteLength: number): PageKernels =>
  keptMemory?.take(byteLength) ?? createKernels(byteLength);

/** Makes the threads and the function that compress frames, and the chooser of the level of compression. */
function makeCompression(
  { cx, contract }: BuildOptions,
  meter: LinkMeter,
  { kernels }: SourceMemory,
): Pick<SessionParts, "chooser" | "zstd"> & Pick<SenderParts, "compress"> {
  const { zstdWorkers } = cx.config.transfer;
  const compression = contract.codecs.includes("zstd") ? cx.call.options.compression : "off";
  const idle = new IdleProcessors(cpus().length);
  const chooser = new CompressionChooser(compression, zstdWorkers, () => {
    // lately() is called even where its figure is not used, so that the figure never covers a long time; while the link
    // is at its peak, the link and not a host is the bottleneck, and idle processors do not matter
    // (docs/design/compression.md#idle-processors)
    const processors = idle.lately();
    return meter.isAtItsPeak ? undefined : processors;
  });
  const zstd = compression === "off" ? undefined : new ZstdPool(kernels.memory, zstdWorkers);
  const compress: SenderParts["compress"] = (from, length, to, limit, level) => {
    if (zstd === undefined) throw new TypeError("compression is off");
    return zstd.compress(from, length, to, limit, level);
  };
  return { chooser, zstd, compress };
}

interface CaptureParts
  extends Pick<SessionParts, "scheduler" | "chooser" | "sender">,
    Pick<PrecopyCaptureOptions, "resumeIntake" | "onLayout" | "onEnd"> {
  readonly memory: SourceMemory;
}

function makeCapture(parts: BuildOptions, hooks: SessionEvents, made: CaptureParts): PrecopyCapture {
  const { cx, ramBlocks, contract, runs } = parts;
  const { memory, scheduler, sender, resumeIntake, onLayout, onEnd } = made;
  const { strategy, onDeadline } = contract;
  const { options } = cx.call;
  const mayChoosePostcopy = options.strategy === "auto" && contract.postcopy;
  const postcopyByOption = options.strategy === "precopy" && postcopyMayFollow({ ...options, strategy: "auto" }, false);
  const policy = new SwitchPolicy({ ...options, strategy, onDeadline, mayChoosePostcopy, postcopyByOption });
  return new PrecopyCapture({
    memory: memory.kernels.memory,
    scheduler,
    sender,
    observer: makeObserver(parts, hooks, made, policy),
    clock: cx.clock,
    expectedBlocks: ramBlocks,
    pace: new SyncPace(cx.config.transfer.syncRate, cx.clock.monotonicMs()),
    onLayout,
    onDecision: hooks.onDecision,
    onFirstPassDone: () => cx.log.info({ captured: scheduler.pages.captured }, "first pass done"),
    onStopped: hooks.onStopped,
    onEnd,
    standsStill: () => runs.standsStill,
    resumeIntake,
  });
}

function makeObserver(
  { cx, ramBlocks, runs }: BuildOptions,
  { meter, linkIsDown, onOutlook }: SessionEvents,
  { scheduler, sender, chooser }: CaptureParts,
  policy: SwitchPolicy,
): CopyObserver {
  const { downtimeTargetMs } = cx.call.options;
  const { syncRate: syncsPerSecond } = cx.config.transfer;
  return new CopyObserver({
    scheduler,
    sender,
    meter,
    policy,
    holdPagesMax: Math.floor((HOLD_SHARE_OF_ARENA * cx.config.memory.arenaBytes) / PAGE_SIZE),
    outlook: new EtaEstimator({ downtimeTargetMs, fixedDowntimeMs: FIXED_COST_MS, syncsPerSecond }),
    clock: cx.clock,
    pageCount: pageCountOf(ramBlocks),
    compressionRatio: () => chooser.recentRatio,
    compressedFrames: () => chooser.compressedFrames,
    standsStill: () => runs.standsStill,
    linkIsDown,
    onOutlook,
    onStall: (stalled, seen) => logStall(cx, stalled, estimateMs(seen), seen),
  });
}

function makeIntake(
  { cx }: BuildOptions,
  { onQemuFault: onFault }: SessionEvents,
  { kernels, window }: SourceMemory,
  reader: StreamParser,
  mayRead: () => boolean,
): Intake {
  const { memory } = kernels;
  return new Intake({ memory, window, windowBytes: WINDOW_BYTES, reader, mayRead, clock: cx.clock, onFault });
}

/**
 * Makes the reader of QEMU's stream: of a new migration, of a post-copy whose QEMU sends everything again, or of a
 * post-copy whose QEMU goes on where its stream broke.
 */
function makeReader(
  { resumed }: BuildOptions,
  memory: Uint8Array,
  capture: PrecopyCapture,
  postcopy: PostcopyCapture | undefined,
): StreamParser {
  if (resumed === undefined) return new StreamReader(memory, capture, {}, postcopy);
  if (postcopy === undefined) throw new TypeError("a migration can go on after its stream broke only in post-copy");
  if (resumed.from === "start") return new StreamReader(memory, new RestartedStreamSink(capture, postcopy));
  return new ResumedReader(memory, setupOf(resumed), new ResumedStreamSink(postcopy));
}
