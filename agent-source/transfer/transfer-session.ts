/**
 * Everything that is alive between staging and the end of a migration: QEMU's monitor and stream, the capture, the
 * channel, the compression workers. First fault wins: it aborts `signal`, and every wait of the phases sees it.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { CompressionChooser } from "../../shared/codec/chooser.ts";
import { MigrationFault } from "../../shared/fault.ts";
import type { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import type { SavedSettings, SourcePostcopy } from "../../shared/protocol/ownership.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { type Deferred, deferred, orAborted } from "../../shared/runtime/deferred.ts";
import { migrationFile } from "../../shared/runtime/guest/meeting-place.ts";
import type { ZstdPool } from "../../shared/runtime/zstd/zstd-pool.ts";
import type { Intake } from "../capture/intake.ts";
import type { Kept } from "../guest/kept.ts";
import type { Agreed } from "../guest/look-at-guest.ts";
import { allowStop, beginPostcopy } from "../guest/qemu-settings.ts";
import type { RunState } from "../guest/run-state.ts";
import { whyQemuFailed } from "../guest/why-qemu-failed.ts";
import { LinkMeter } from "../link/link-meter.ts";
import { PeerInbox } from "../link/peer-inbox.ts";
import { ASK_EVERY_MS, SilenceDetector } from "../link/silence-detector.ts";
import type { PostcopyCapture } from "../postcopy/postcopy-capture.ts";
import { shallowFrameBytes } from "../send/credit.ts";
import type { FrameSender } from "../send/frame-sender.ts";
import type { PrecopyScheduler } from "../send/precopy-scheduler.ts";
import type { Decision } from "../switchover/switch-policy.ts";
import { buildSession } from "./build-session.ts";
import type { PrecopyCapture } from "./precopy-capture.ts";
import { retainedBytes, type SessionContract, type SessionOptions } from "./session-options.ts";

/** Longest part of a turn of QEMU's migration loop (migration/ram.c MAX_WAIT), and a little. */
const QEMU_TURN_MS = 55;

export class TransferSession {
  readonly qmp: QmpClient;
  readonly channel: ResumingSource;
  readonly contract: SessionContract;
  readonly meter = new LinkMeter();
  readonly inbox: PeerInbox;
  readonly decision: Deferred<Decision> = deferred();
  /** Post-copy: the discards and the package are on their way. */
  readonly packaged: Deferred<void> = deferred();
  /** Where post-copy may follow. */
  readonly postcopy: PostcopyCapture | undefined;
  /** QEMU completes: the guest is stopped, whoever stopped it. */
  readonly completing: Deferred<void> = deferred();
  /** QEMU's stream was read and sent to its end. */
  readonly ended: Deferred<void> = deferred();
  readonly scheduler: PrecopyScheduler;
  readonly chooser: CompressionChooser;
  readonly sender: FrameSender;
  readonly capture: PrecopyCapture;
  readonly intake: Intake;
  readonly streamPath: string;
  readonly runs: RunState;
  /** The devices and disks that the destination has accepted; undefined where they are not compared again. */
  readonly agreed: Agreed | undefined;
  /**
   * True while the operator has paused the guest, which then stays paused. The value is what this agent found; from the
   * end of the stream on it is what QEMU's migration found. The journal has this value before QEMU is told to complete.
   */
  paused: boolean;
  probeBytes = 0;
  private isShut = false;
  /** Once they were changed. */
  settings: SavedSettings | undefined;
  /** Post-copy has begun: the guest is stopped by this agent, and is to be started again where it stays here. */
  stoppedWith: SourcePostcopy | undefined;
  /** QEMU has closed its monitor, after its stream was read to the end: the guest can still be saved. */
  qemuLost = false;
  /** QEMU's stream was read to its end. */
  private isRead = false;
  private complete = false;
  private committed = false;
  private readonly abort = new AbortController();
  private readonly zstd: ZstdPool | undefined;
  private closed = false;
  private readonly watch: SilenceDetector;
  private readonly asking: NodeJS.Timeout;

  constructor(parts: SessionOptions) {
    const { cx, qmp, contract, channel, runs } = parts;
    this.qmp = qmp;
    this.runs = runs;
    this.paused = parts.paused;
    this.agreed = parts.agreed;
    this.channel = channel;
    this.contract = contract;
    this.streamPath = migrationFile(cx.call.guest, cx, "stream");
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
    channel.retain(retainedBytes(contract));
    channel.onChange = (connected) => this.linkChanged(connected, parts);
    this.inbox = new PeerInbox(channel, this.meter, cx.clock, (fault) => this.fail(fault));
    this.watch = new SilenceDetector(cx.clock.monotonicMs());
    this.inbox.onHeard = () => this.watch.heard(cx.clock.monotonicMs());
    this.asking = setInterval(() => void this.inbox.ping(), ASK_EVERY_MS);

    const assembly = buildSession(parts, {
      meter: this.meter,
      linkIsDown: () => channel.isCut || this.watch.isSilent(cx.clock.monotonicMs(), this.meter.knownRoundTripMs),
      onDecision: (decision) => this.decision.resolve(decision),
      onPackaged: () => this.packaged.resolve(),
      onStopped: () => this.completing.resolve(),
      onRead: () => {
        this.isRead = true;
      },
      onEnd: () => this.ended.resolve(),
      onFault: (fault) => this.fail(fault),
      onQemuFault: (fault) => this.qemuFailed(fault),
    });
    this.scheduler = assembly.scheduler;
    this.chooser = assembly.chooser;
    this.sender = assembly.sender;
    this.postcopy = assembly.postcopy;
    this.capture = assembly.capture;
    this.intake = assembly.intake;
    this.zstd = assembly.zstd;
    this.inbox.postcopy = this.postcopy;
  }

  /** The migration goes on: QEMU is captured and coalesced, and what the link did is measured anew. */
  private linkChanged(connected: boolean, { cx, onCut }: SessionOptions): void {
    cx.log.warn({ connected, ...this.channel.interruptions }, connected ? "the link is back" : "the link is lost");
    this.meter.interrupted();
    if (connected) this.inbox.reconnected();
    else onCut(this.signal, (fault) => this.gone(fault));
  }

  /**
   * Once its stream was read to the end, QEMU has given everything: what it does then is for *retiring* to find out.
   */
  private qemuFailed(fault: MigrationFault): void {
    if (!this.complete && !this.isRead) void whyQemuFailed(this.qmp, fault).then((why) => this.fail(why));
  }

  /** For the journal. */
  get kept(): Kept {
    return { settings: this.settings, paused: this.paused, postcopy: this.stoppedWith };
  }

  /** Aborted with the first fault. */
  get signal(): AbortSignal {
    return this.abort.signal;
  }

  /**
   * The guest is granted: what the operator wishes, and what the destination has to say of it, end nothing here any
   * more.
   */
  commit(): void {
    this.committed = true;
  }

  /**
   * The destination does not dial again. In post-copy *serving* waits for this fault. In pre-copy, after the grant, the
   * fault counts for nothing: the destination is asked by calls then.
   */
  private gone(fault: MigrationFault): void {
    if (this.isPostcopy) this.fail(fault);
    else this.revocable(fault);
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
    this.capture.beginFinal();
    allowStop(this.qmp).catch((thrown: unknown) => this.qemuFailed(MigrationFault.from(thrown)));
  }

  /**
   * Stops the guest, whose last pages follow when it runs at the destination. First what is on its way becomes little,
   * since the package goes behind it, and QEMU's loop comes to its next turn: held for longer than a turn lasts, it
   * ends it with the next pages that are read. A QEMU that has nothing left completes as of precopy: `ended` then.
   * @param note writes down that the guest is stopped, before it is
   * @throws MigrationFault `guest-not-running` for a guest that somebody else has just paused, since nobody could tell
   *   later who has paused it
   */
  async letPostcopy(note: (postcopy: SourcePostcopy | undefined) => Promise<void>): Promise<void> {
    const { postcopy, meter, contract, qmp, intake } = this;
    if (postcopy === undefined) throw new TypeError("post-copy was not agreed on");
    const { frameBytes, creditWindowBytes, codecs } = contract;
    const record = { ...this.capture.streamLayout, frameBytes, creditWindowBytes, codecs };
    postcopy.scheduler.frameBytes = shallowFrameBytes(meter, frameBytes);
    intake.hold();
    const shallow = this.sender.beShallow(postcopy.scheduler.frameBytes);
    await orAborted(Promise.all([shallow, delay(QEMU_TURN_MS), note(record)]), this.signal);
    if (this.runs.standsStill) {
      this.paused = true;
      await note(undefined);
      throw new MigrationFault("guest-not-running", "The guest was paused as post-copy was about to begin", {
        advice: "Migrate again: a paused guest is moved as it is",
      });
    }
    this.stoppedWith = record;
    await beginPostcopy(qmp, () => {
      this.capture.beginFinal();
      intake.release();
    });
    intake.acknowledgeSwitchover();
  }

  /** Says that the stream has ended when all of it was sent. */
  endWhenRead(): Promise<void> {
    return this.ended.promise.then(() => {
      this.channel.send({ kind: "endOfStream", lastSequence: this.sender.sequence });
    });
  }

  /** Has the package come? Then the pages that are left follow behind the hand-over. */
  get isPostcopy(): boolean {
    return this.postcopy?.isActive === true;
  }

  /** Page acknowledgements go to the sender from now on. */
  probed(bytes: number): void {
    this.probeBytes = bytes;
    this.inbox.onAck = ({ sequence, appliedBytes }) => this.sender.acknowledge(sequence, appliedBytes);
  }

  /**
   * True while QEMU has written its whole stream and waits for SHUT: the guest is stopped, and QEMU has released its
   * images. False for a guest that was paused, since QEMU does not run such a guest, however its migration ends.
   */
  get awaitsShut(): boolean {
    return this.isRead && !this.isPostcopy && this.stoppedWith === undefined && !this.paused && !this.isShut;
  }

  /** Says SHUT to QEMU, which then completes its migration and never runs the guest by itself again. */
  shut(): void {
    this.isShut = true;
    this.intake.shut();
  }

  /** Ends capture and sending; the monitor and the channel stay. */
  async stop(): Promise<void> {
    this.closed = true;
    clearInterval(this.asking);
    this.capture.stop();
    this.sender.stop();
    await this.intake.close();
    await this.zstd?.release();
  }
}
