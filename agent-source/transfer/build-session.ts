/** The parts of a session and how they are joined: memory, order, frames, capture, and the reading of QEMU's stream. No state of its own. */
import { cpus } from "node:os";
import { CompressionChooser } from "../../shared/codec/chooser.ts";
import type { MigrationFault } from "../../shared/fault.ts";
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
import { createSourceMemory, type SourceMemory, WINDOW_BYTES } from "../send/source-memory.ts";
import { CopyObserver } from "../switchover/copy-observer.ts";
import { EtaEstimator } from "../switchover/eta.ts";
import { type Decision, FIXED_COST_MS, SwitchPolicy } from "../switchover/switch-policy.ts";
import { PrecopyCapture } from "./precopy-capture.ts";
import { RestartedStreamSink, ResumedStreamSink, setupOf } from "./resumed-streams.ts";
import { type BuildOptions, HOLD_SHARE_OF_ARENA, logStall, pageCountOf, schedulerOptions } from "./session-options.ts";

/** Active push: most pages that are asked for ahead of a guest that walks its memory (docs/decisions/0026). */
const AHEAD_PAGES = 4096;

/** What the parts say to their session, and ask of it. */
export interface SessionEvents {
  readonly meter: LinkMeter;
  readonly linkIsDown: () => boolean;
  readonly onDecision: (decision: Decision) => void;
  /** Post-copy: the discards and the package are on their way. */
  readonly onPackaged: () => void;
  readonly onStopped: () => void;
  readonly onEnd: () => void;
  readonly onFault: (fault: MigrationFault) => void;
  readonly onQemuFault: (fault: MigrationFault) => void;
}

export interface SessionParts {
  readonly scheduler: PrecopyScheduler;
  readonly chooser: CompressionChooser;
  readonly sender: FrameSender;
  /** Where post-copy may follow. */
  readonly postcopy: PostcopyCapture | undefined;
  readonly capture: PrecopyCapture;
  readonly intake: Intake;
  readonly zstd: ZstdPool | undefined;
}

export function buildSession(parts: BuildOptions, hooks: SessionEvents): SessionParts {
  const { cx, contract } = parts;
  const { zstdWorkers } = cx.config.transfer;
  const options = schedulerOptions(parts);
  const memory = createSourceMemory(options, cx.createKernels);
  const scheduler = new PrecopyScheduler(memory.kernels, memory.region, options);
  const compression = contract.codecs.includes("zstd") ? cx.call.options.compression : "off";
  const idle = new IdleProcessors(cpus().length);
  const chooser = new CompressionChooser(compression, zstdWorkers, () => {
    const processors = idle.lately();
    return hooks.meter.isAtItsPeak ? undefined : processors;
  });
  const zstd = compression === "off" ? undefined : new ZstdPool(memory.kernels.memory, zstdWorkers);
  const sender: FrameSender = new FrameSender({
    kernels: memory.kernels,
    buffers: memory.buffers,
    frameBytes: contract.frameBytes,
    scheduler,
    channel: parts.channel,
    compress: (from, length, to, limit, level) => {
      if (zstd === undefined) throw new TypeError("compression is off");
      return zstd.compress(from, length, to, limit, level);
    },
    chooser,
    meter: hooks.meter,
    pacer: new Pacer(cx.call.options.bandwidthBytesPerSecond),
    clock: cx.clock,
    creditWindowBytes: contract.creditWindowBytes,
    onSent: youngCollector(),
    onRoom: () => capture.roomMade(),
    onFault: hooks.onFault,
  });
  const postcopy: PostcopyCapture | undefined = contract.postcopy
    ? new PostcopyCapture({
        memory: memory.kernels.memory,
        scheduler,
        sender,
        pageCount: pageCountOf(parts.ramBlocks),
        aheadPages: AHEAD_PAGES,
        byHeat: cx.call.options.reorder,
        answer: (bytes) => intake.answer(bytes),
        onPackaged: () => {
          capture.lastPagesSent();
          hooks.onPackaged();
        },
        onWanted: () => capture.roomMade(),
      })
    : undefined;
  const capture: PrecopyCapture = makeEngine(parts, hooks, {
    memory,
    scheduler,
    chooser,
    sender,
    postcopy,
    resumeIntake: () => intake.resume(),
  });
  const intake: Intake = new Intake({
    memory: memory.kernels.memory,
    window: memory.window,
    windowBytes: WINDOW_BYTES,
    reader: makeReader(parts, memory.kernels.memory, capture, postcopy),
    onFault: hooks.onQemuFault,
  });
  return { scheduler, chooser, sender, postcopy, capture, intake, zstd };
}

interface EngineMakings extends Pick<SessionParts, "scheduler" | "chooser" | "sender" | "postcopy"> {
  readonly memory: SourceMemory;
  readonly resumeIntake: () => void;
}

function makeEngine(parts: BuildOptions, hooks: SessionEvents, makings: EngineMakings): PrecopyCapture {
  const { cx, ramBlocks, channel, contract, runs } = parts;
  const { memory, scheduler, sender, postcopy, resumeIntake } = makings;
  const { strategy, onDeadline } = contract;
  const policy = new SwitchPolicy({ ...cx.call.options, strategy, onDeadline });
  return new PrecopyCapture(
    {
      memory: memory.kernels.memory,
      scheduler,
      sender,
      observer: makeWatch(parts, hooks, makings, policy),
      clock: cx.clock,
      expectedBlocks: ramBlocks,
      postcopy,
      pace: new SyncPace(cx.config.transfer.syncRate, cx.clock.monotonicMs()),
      announceLayout: (blocks, ramSectionId) => {
        channel.send({ kind: "layout", blocks, ramSectionId });
      },
      onDecision: hooks.onDecision,
      onFirstPassDone: () => cx.log.info({ captured: scheduler.pages.captured }, "first pass done"),
      onStopped: hooks.onStopped,
      onEnd: hooks.onEnd,
      standsStill: () => runs.standsStill,
      resumeIntake,
    },
    cx.clock.monotonicMs(),
  );
}

function makeWatch(
  { cx, ramBlocks, runs }: BuildOptions,
  { meter, linkIsDown }: SessionEvents,
  { scheduler, sender, chooser }: EngineMakings,
  policy: SwitchPolicy,
): CopyObserver {
  const { downtimeTargetMs } = cx.call.options;
  const { syncRate: syncsPerSecond } = cx.config.transfer;
  return new CopyObserver(
    {
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
      onStall: (stalled, seen) => logStall(cx, stalled, policy.estimateMs(seen), seen),
    },
    cx.clock.monotonicMs(),
  );
}

function makeReader(
  { resumed }: BuildOptions,
  memory: Uint8Array,
  capture: PrecopyCapture,
  postcopy: PostcopyCapture | undefined,
): StreamParser {
  if (resumed === undefined) return new StreamReader(memory, capture, {}, postcopy);
  if (postcopy === undefined) throw new TypeError("only post-copy is taken up");
  if (resumed.from === "start") return new StreamReader(memory, new RestartedStreamSink(capture));
  return new ResumedReader(memory, setupOf(resumed), new ResumedStreamSink(capture, postcopy));
}
