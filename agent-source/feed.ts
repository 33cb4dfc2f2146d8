/**
 * Everything that is alive between staging and the end of a migration: QEMU's monitor and stream, the engine, the
 * channel, the compression workers. First fault wins: it aborts `signal`, and every wait of the phases sees it.
 */
import { join } from "node:path";
import { CompressionChooser } from "../shared/codec/chooser.ts";
import { frameBufferBytes } from "../shared/codec/page-frame.ts";
import { MigrationFault } from "../shared/fault.ts";
import type { ResumingSource } from "../shared/link/resuming-source.ts";
import type { Contract } from "../shared/protocol/messages.ts";
import type { SavedSettings } from "../shared/protocol/ownership.ts";
import type { GuestFacts } from "../shared/qemu/preflight.ts";
import type { QmpClient } from "../shared/qemu/qmp-client.ts";
import { type Deferred, deferred } from "../shared/runtime/deferred.ts";
import { youngCollector } from "../shared/runtime/return-memory.ts";
import { ZstdPool } from "../shared/runtime/zstd-pool.ts";
import { PAGE_SIZE } from "../shared/units.ts";
import { CopyEngine } from "./copy-engine.ts";
import { CopyWatch } from "./copy-watch.ts";
import { watchCut } from "./cut-watch.ts";
import { FeedPace } from "./feed-pace.ts";
import { FrameSender } from "./frame-sender.ts";
import { Intake } from "./intake.ts";
import { LinkMeter } from "./link-meter.ts";
import { ASK_EVERY_MS, LinkWatch } from "./link-watch.ts";
import { Outlook } from "./outlook.ts";
import { Pacer } from "./pacer.ts";
import { PeerInbox } from "./peer-inbox.ts";
import { allowStop } from "./qemu-settings.ts";
import type { SourceContext } from "./source-context.ts";
import { createSourceMemory, type SourceMemory, WINDOW_BYTES } from "./source-memory.ts";
import { type Decision, FIXED_COST_MS, type Observation, SwitchPolicy } from "./switch-policy.ts";
import { TransferScheduler } from "./transfer-scheduler.ts";

/** Frames that may be on their way beyond the credit window: those being compressed when it closed. */
const OVERSHOOT_FRAMES = 12;
/** Part of the arena that held pages may fill. */
const HOLD_SHARE_OF_ARENA = 0.5;

export interface FeedParts {
  readonly cx: SourceContext;
  readonly qmp: QmpClient;
  readonly facts: GuestFacts;
  readonly contract: Contract;
  readonly channel: ResumingSource;
}

export class Feed {
  readonly qmp: QmpClient;
  readonly channel: ResumingSource;
  readonly contract: Contract;
  readonly meter = new LinkMeter();
  readonly inbox: PeerInbox;
  readonly decision: Deferred<Decision> = deferred();
  /** QEMU's stream was read and sent to its end. */
  readonly ended: Deferred<void> = deferred();
  readonly scheduler: TransferScheduler;
  readonly chooser: CompressionChooser;
  readonly sender: FrameSender;
  readonly engine: CopyEngine;
  readonly intake: Intake;
  readonly streamPath: string;
  probeBytes = 0;
  /** Once they were changed. */
  settings: SavedSettings | undefined;
  /** QEMU has closed its monitor, after its stream was read to the end: the guest can still be saved. */
  qemuLost = false;
  private complete = false;
  private readonly abort = new AbortController();
  private readonly zstd: ZstdPool | undefined;
  private closed = false;
  private readonly watch: LinkWatch;
  private readonly asking: NodeJS.Timeout;

  constructor(parts: FeedParts) {
    const { cx, qmp, contract, channel } = parts;
    this.qmp = qmp;
    this.channel = channel;
    this.contract = contract;
    this.streamPath = join(cx.config.runtimeDirectory, `${cx.id}.stream`);
    cx.cancelled.addEventListener("abort", () => this.fail(MigrationFault.from(cx.cancelled.reason)), { once: true });
    void qmp.closed.then((fault) => {
      this.qemuLost = true;
      this.qemuFailed(fault ?? new MigrationFault("qmp-disconnected", "QEMU's monitor is closed"));
    });
    void this.ended.promise.then(() => {
      this.complete = true;
    });
    channel.retain(contract.creditWindowBytes + OVERSHOOT_FRAMES * frameBufferBytes(contract.frameBytes));
    channel.onChange = (connected) => this.linkChanged(connected, cx);
    this.inbox = new PeerInbox(channel, this.meter, cx.clock, (fault) => this.fail(fault));
    this.watch = new LinkWatch(cx.clock.monotonicMs());
    this.inbox.onHeard = () => this.watch.heard(cx.clock.monotonicMs());
    this.asking = setInterval(() => void this.inbox.ping(), ASK_EVERY_MS);

    const options = schedulerOptions(parts);
    const memory = createSourceMemory(options, cx.createKernels);
    this.scheduler = new TransferScheduler(memory.kernels, memory.region, options);
    const compression = contract.codecs.includes("zstd") ? cx.call.options.compression : "off";
    this.chooser = new CompressionChooser(compression, cx.config.transfer.zstdWorkers);
    this.zstd = compression === "off" ? undefined : new ZstdPool(memory.kernels.memory, cx.config.transfer.zstdWorkers);
    this.sender = this.makeSender(parts, memory);
    this.engine = this.makeEngine(parts, memory);
    this.intake = new Intake({
      memory: memory.kernels.memory,
      window: memory.window,
      windowBytes: WINDOW_BYTES,
      sink: this.engine,
      onFault: (fault) => this.qemuFailed(fault),
    });
  }

  /** The migration goes on: QEMU is captured and coalesced, and what the link did is measured anew. */
  private linkChanged(connected: boolean, cx: SourceContext): void {
    cx.log.warn({ connected, ...this.channel.interruptions }, connected ? "the link is back" : "the link is lost");
    this.meter.interrupted();
    if (connected) this.inbox.reconnected();
    else void watchCut(cx, this.channel, AbortSignal.any([this.signal, cx.leaving]), (fault) => this.fail(fault));
  }

  /** Once its stream was read to the end, QEMU has given everything: what it does then is for *retiring* to find out. */
  private qemuFailed(fault: MigrationFault): void {
    if (!this.complete) this.fail(fault);
  }

  /** Aborted with the first fault. */
  get signal(): AbortSignal {
    return this.abort.signal;
  }

  fail(fault: MigrationFault): void {
    if (!this.closed) this.abort.abort(fault);
  }

  /**
   * QEMU may stop the guest and send the rest. Its stream is read on meanwhile: an answer from its main loop must never
   * be waited for with its socket full.
   */
  letStop(): void {
    this.intake.acknowledgeSwitchover();
    this.engine.beginFinal();
    allowStop(this.qmp).catch((thrown: unknown) => this.qemuFailed(MigrationFault.from(thrown)));
  }

  /** Page acknowledgements go to the sender from now on. */
  probed(bytes: number): void {
    this.probeBytes = bytes;
    this.inbox.onAck = ({ sequence, appliedBytes }) => this.sender.acknowledge(sequence, appliedBytes);
  }

  /** Ends capture and sending; the monitor and the channel stay. */
  async stop(): Promise<void> {
    this.closed = true;
    clearInterval(this.asking);
    this.engine.stop();
    this.sender.stop();
    await this.intake.close();
    await this.zstd?.close();
  }

  private makeSender(parts: FeedParts, memory: SourceMemory): FrameSender {
    const { cx, channel, contract } = parts;
    return new FrameSender({
      kernels: memory.kernels,
      buffers: memory.buffers,
      frameBytes: contract.frameBytes,
      scheduler: this.scheduler,
      channel,
      compress: (from, length, to, limit, level) => this.compress(from, length, to, limit, level),
      chooser: this.chooser,
      meter: this.meter,
      pacer: new Pacer(cx.call.options.bandwidthBytesPerSecond),
      clock: cx.clock,
      creditWindowBytes: contract.creditWindowBytes,
      onSent: youngCollector(),
      onRoom: () => this.engine.roomMade(),
      onFault: (fault) => this.fail(fault),
    });
  }

  private makeWatch({ cx, channel }: FeedParts, policy: SwitchPolicy, pageCount: number): CopyWatch {
    const nowMs = cx.clock.monotonicMs();
    const { downtimeTargetMs } = cx.call.options;
    const { syncRate: syncsPerSecond } = cx.config.transfer;
    const outlookPlan = { downtimeTargetMs, fixedDowntimeMs: FIXED_COST_MS, syncsPerSecond };
    return new CopyWatch(
      {
        scheduler: this.scheduler,
        sender: this.sender,
        meter: this.meter,
        policy,
        outlook: new Outlook(outlookPlan),
        clock: cx.clock,
        pageCount,
        compressionRatio: () => this.chooser.recentRatio,
        linkIsDown: () => channel.isCut || this.watch.isSilent(cx.clock.monotonicMs(), this.meter.knownRoundTripMs),
        onStall: (stalled, seen) => logStall(cx, stalled, policy.estimateMs(seen), seen),
      },
      nowMs,
    );
  }

  private makeEngine(parts: FeedParts, memory: SourceMemory): CopyEngine {
    const { cx, facts, channel } = parts;
    const { options } = cx.call;
    const strategy = options.strategy === "stop-and-copy" ? "stop-and-copy" : "precopy";
    const policy = new SwitchPolicy({ ...options, strategy });
    return new CopyEngine(
      {
        memory: memory.kernels.memory,
        scheduler: this.scheduler,
        sender: this.sender,
        watch: this.makeWatch(parts, policy, pageCountOf(facts)),
        policy,
        clock: cx.clock,
        expectedBlocks: facts.ramBlocks,
        pace: new FeedPace(cx.config.transfer.syncRate, cx.clock.monotonicMs()),
        holdPagesMax: Math.floor((HOLD_SHARE_OF_ARENA * cx.config.memory.arenaBytes) / PAGE_SIZE),
        announceLayout: (blocks, ramSectionId) => {
          channel.send({ kind: "layout", blocks, ramSectionId });
        },
        onDecision: (decision) => this.decision.resolve(decision),
        onFirstPassDone: () => cx.log.info({ captured: this.scheduler.pages.captured }, "first pass done"),
        onStopped: () => undefined,
        onEnd: () => this.ended.resolve(),
        resumeIntake: () => this.intake.resume(),
      },
      cx.clock.monotonicMs(),
    );
  }

  private compress(from: number, length: number, to: number, limit: number, level: number): Promise<number> {
    if (this.zstd === undefined) throw new TypeError("compression is off");
    return this.zstd.compress(from, length, to, limit, level);
  }
}

const pageCountOf = (facts: GuestFacts): number =>
  facts.ramBlocks.reduce((sum, block) => sum + block.byteLength / PAGE_SIZE, 0);

/** Once for each change: a migration may stay stalled for hours. */
function logStall(cx: SourceContext, stalled: boolean, estimatedDowntimeMs: number, seen: Observation): void {
  const { downtimeTargetMs } = cx.call.options;
  const { bytesPerSecond, residualPages } = seen;
  const figures = {
    estimatedDowntimeMs: Math.round(estimatedDowntimeMs),
    downtimeTargetMs,
    bytesPerSecond,
    residualPages,
  };
  if (stalled) cx.log.warn(figures, "not converging");
  else cx.log.info(figures, seen.linkIsDown ? "not converging is over: the link is down" : "converging again");
}

function schedulerOptions({ cx, facts, contract }: FeedParts) {
  return {
    pageCount: pageCountOf(facts),
    delta: contract.codecs.includes("xbzrle"),
    reorder: cx.call.options.reorder,
    pendingSlots: Math.floor(cx.config.memory.arenaBytes / PAGE_SIZE),
    baseSlots: Math.floor(cx.config.memory.baseCacheBytes / PAGE_SIZE),
    frameBytes: contract.frameBytes,
  };
}
