/**
 * Everything that is alive between staging and the end of a migration: QEMU's monitor and stream, the engine, the
 * channel, the compression workers. First fault wins: it aborts `signal`, and every wait of the phases sees it.
 */
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { CompressionChooser } from "../shared/codec/chooser.ts";
import { frameBufferBytes } from "../shared/codec/page-frame.ts";
import { MigrationFault } from "../shared/fault.ts";
import type { ResumingSource } from "../shared/link/resuming-source.ts";
import type { SavedSettings, SourcePostcopy } from "../shared/protocol/ownership.ts";
import type { QmpClient } from "../shared/qemu/qmp-client.ts";
import { ResumedReader } from "../shared/qemu/resumed-reader.ts";
import { StreamReader } from "../shared/qemu/stream-reader.ts";
import { type Deferred, deferred, orAborted } from "../shared/runtime/deferred.ts";
import { youngCollector } from "../shared/runtime/return-memory.ts";
import { ZstdPool } from "../shared/runtime/zstd-pool.ts";
import { PAGE_SIZE } from "../shared/units.ts";
import { CopyEngine } from "./copy-engine.ts";
import { CopyWatch } from "./copy-watch.ts";
import { shallowFrameBytes } from "./credit.ts";
import { watchCut } from "./cut-watch.ts";
import { FeedPace } from "./feed-pace.ts";
import { type FeedContract, type FeedParts, logStall, pageCountOf, schedulerOptions } from "./feed-parts.ts";
import { FrameSender } from "./frame-sender.ts";
import { Intake, type StreamSource } from "./intake.ts";
import { LinkMeter } from "./link-meter.ts";
import { ASK_EVERY_MS, LinkWatch } from "./link-watch.ts";
import { Outlook } from "./outlook.ts";
import { Pacer } from "./pacer.ts";
import { PeerInbox } from "./peer-inbox.ts";
import { PostcopyCapture } from "./postcopy-capture.ts";
import { allowStop, beginPostcopy } from "./qemu-settings.ts";
import { RepeatedSource, ResumedSource, setupOf } from "./resumed-source.ts";
import type { SourceContext } from "./source-context.ts";
import { createSourceMemory, type SourceMemory, WINDOW_BYTES } from "./source-memory.ts";
import { type Decision, FIXED_COST_MS, SwitchPolicy } from "./switch-policy.ts";
import { TransferScheduler } from "./transfer-scheduler.ts";

/** Frames that may be on their way beyond the credit window: those being compressed when it closed. */
const OVERSHOOT_FRAMES = 12;
/** Active push: most pages that are asked for ahead of a guest that walks its memory (docs/decisions/0026). */
const AHEAD_PAGES = 4096;
/** Longest part of a turn of QEMU's migration loop (migration/ram.c MAX_WAIT), and a little. */
const QEMU_TURN_MS = 55;
/** Part of the arena that held pages may fill. */
const HOLD_SHARE_OF_ARENA = 0.5;

export class Feed {
  readonly qmp: QmpClient;
  readonly channel: ResumingSource;
  readonly contract: FeedContract;
  readonly meter = new LinkMeter();
  readonly inbox: PeerInbox;
  readonly decision: Deferred<Decision> = deferred();
  /** Post-copy: the discards and the package are on their way. */
  readonly packaged: Deferred<void> = deferred();
  /** Where post-copy may follow. */
  readonly postcopy: PostcopyCapture | undefined;
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
  /** Post-copy has begun: the guest is stopped by this agent, and is to be started again where it stays here. */
  stoppedWith: SourcePostcopy | undefined;
  /** QEMU has closed its monitor, after its stream was read to the end: the guest can still be saved. */
  qemuLost = false;
  private complete = false;
  private committed = false;
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
    cx.cancelled.addEventListener("abort", () => this.revocable(MigrationFault.from(cx.cancelled.reason)), {
      once: true,
    });
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
    this.postcopy = contract.postcopy ? this.makePostcopy(parts, memory) : undefined;
    this.inbox.postcopy = this.postcopy;
    this.engine = this.makeEngine(parts, memory);
    this.intake = new Intake({
      memory: memory.kernels.memory,
      window: memory.window,
      windowBytes: WINDOW_BYTES,
      reader: this.makeReader(parts, memory.kernels.memory),
      onFault: (fault) => this.qemuFailed(fault),
    });
  }

  /** The migration goes on: QEMU is captured and coalesced, and what the link did is measured anew. */
  private linkChanged(connected: boolean, cx: SourceContext): void {
    cx.log.warn({ connected, ...this.channel.interruptions }, connected ? "the link is back" : "the link is lost");
    this.meter.interrupted();
    if (connected) this.inbox.reconnected();
    else void watchCut(cx, this.channel, AbortSignal.any([this.signal, cx.leaving]), (fault) => this.revocable(fault));
  }

  /** Once its stream was read to the end, QEMU has given everything: what it does then is for *retiring* to find out. */
  private qemuFailed(fault: MigrationFault): void {
    if (!this.complete && !this.engine.streamEnded) this.fail(fault);
  }

  /** Aborted with the first fault. */
  get signal(): AbortSignal {
    return this.abort.signal;
  }

  /** The guest is granted: what the operator wishes, and what the destination has to say of it, end nothing here any more. */
  commit(): void {
    this.committed = true;
  }

  private revocable(fault: MigrationFault): void {
    if (!this.committed) this.fail(fault);
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

  /**
   * Stops the guest, whose last pages follow when it runs at the destination. First what is on its way becomes little, since
   * the package goes behind it, and QEMU's loop comes to its next turn: held for longer than a turn lasts, it ends it with
   * the next pages that are read. A QEMU that has nothing left completes as of precopy: `ended` then.
   * @param note writes down that the guest is stopped, before it is
   */
  async letPostcopy(note: (record: SourcePostcopy) => Promise<void>): Promise<void> {
    const { postcopy, meter, contract, qmp, intake } = this;
    if (postcopy === undefined) throw new TypeError("post-copy was not agreed on");
    const { frameBytes, creditWindowBytes, codecs } = contract;
    const record = { ...this.engine.streamLayout, frameBytes, creditWindowBytes, codecs };
    postcopy.scheduler.frameBytes = shallowFrameBytes(meter, frameBytes);
    intake.hold();
    const shallow = this.sender.beShallow(postcopy.scheduler.frameBytes);
    await orAborted(Promise.all([shallow, delay(QEMU_TURN_MS), note(record)]), this.signal);
    this.stoppedWith = record;
    await beginPostcopy(qmp);
    this.engine.beginFinal();
    intake.acknowledgeSwitchover();
    intake.release();
  }

  /** Says that the stream has ended when all of it was sent. */
  endWhenRead(): Promise<void> {
    return this.ended.promise.then(() => {
      this.channel.send({ kind: "endOfStream", lastSequence: this.sender.sequence });
    });
  }

  /** Has the package come? Then the pages that are left follow behind the hand-over. */
  get isPostcopy(): boolean {
    return this.postcopy?.active === true;
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

  private makeReader({ resumed }: FeedParts, memory: Uint8Array): StreamSource {
    if (resumed === undefined) return new StreamReader(memory, this.engine, {}, this.postcopy);
    if (this.postcopy === undefined) throw new TypeError("only post-copy is taken up");
    if (resumed.from === "start") return new StreamReader(memory, new RepeatedSource(this.engine));
    return new ResumedReader(memory, setupOf(resumed), new ResumedSource(this.engine, this.postcopy));
  }

  private makePostcopy({ cx, ramBlocks }: FeedParts, memory: SourceMemory): PostcopyCapture {
    const { reorder } = cx.call.options;
    return new PostcopyCapture({
      memory: memory.kernels.memory,
      scheduler: this.scheduler,
      sender: this.sender,
      pageCount: pageCountOf(ramBlocks),
      aheadPages: AHEAD_PAGES,
      byHeat: reorder,
      answer: (bytes) => this.intake.answer(bytes),
      onPackaged: () => {
        this.engine.lastPagesSent();
        this.packaged.resolve();
      },
      onWanted: () => this.engine.roomMade(),
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
    const { cx, ramBlocks, channel, contract } = parts;
    const policy = new SwitchPolicy({ ...cx.call.options, strategy: contract.strategy });
    return new CopyEngine(
      {
        memory: memory.kernels.memory,
        scheduler: this.scheduler,
        sender: this.sender,
        watch: this.makeWatch(parts, policy, pageCountOf(ramBlocks)),
        policy,
        clock: cx.clock,
        expectedBlocks: ramBlocks,
        postcopy: this.postcopy,
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
