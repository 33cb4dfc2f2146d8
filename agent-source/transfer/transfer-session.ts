/**
 * Holds everything that is alive between staging and the end of a migration: QEMU's monitor and stream, the capture,
 * the channel, the compression workers. The first fault wins: it aborts `signal`, and every wait of the phases sees it.
 *
 * Not its job: in which order a migration goes (agent-source/migration/phases/), and how the parts are joined
 * (build-session.ts).
 */
import type { CompressionChooser } from "../../shared/codec/chooser.ts";
import { MigrationFault } from "../../shared/fault.ts";
import type { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { SavedSettings, SourcePostcopy } from "../../shared/protocol/ownership.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { Clock, Timer } from "../../shared/runtime/clock.ts";
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
import type { KeptMemory } from "../send/kept-memory.ts";
import type { PrecopyScheduler } from "../send/precopy-scheduler.ts";
import type { Decision } from "../switchover/observation.ts";
import { buildSession } from "./build-session.ts";
import type { PrecopyCapture } from "./precopy-capture.ts";
import { retainedBytes, type SessionContract, type SessionOptions } from "./session-options.ts";

/**
 * A little more than the longest turn of QEMU's migration loop, milliseconds. QEMU ends a turn after 50 ms
 * (migration/ram.c MAX_WAIT).
 */
const QEMU_TURN_MS = 55;

export class TransferSession {
  readonly qmp: QmpClient;
  readonly channel: ResumingSource;
  readonly contract: SessionContract;
  readonly meter = new LinkMeter();
  readonly inbox: PeerInbox;
  /** Resolves when the policy has decided to switch or to cancel. */
  readonly decision: Deferred<Decision> = deferred();
  /** Resolves in post-copy when the discards and the package are queued to be sent. */
  readonly packaged: Deferred<void> = deferred();
  /** Present if post-copy was agreed on. */
  readonly postcopy: PostcopyCapture | undefined;
  /**
   * Resolves when QEMU's stream shows that the guest is stopped, whether QEMU, this agent or the operator has stopped
   * it.
   */
  readonly completing: Deferred<void> = deferred();
  /** Resolves when QEMU's stream was read to its end and given to the link. */
  readonly ended: Deferred<void> = deferred();
  readonly scheduler: PrecopyScheduler;
  readonly chooser: CompressionChooser;
  readonly sender: FrameSender;
  readonly capture: PrecopyCapture;
  readonly intake: Intake;
  /** The path of the socket to which QEMU writes its stream. */
  readonly streamPath: string;
  readonly runs: RunState;
  /**
   * The devices and disks that the destination has accepted, with which those of the guest are compared again once it
   * stands still; undefined where a broken post-copy goes on.
   */
  readonly agreed: Agreed | undefined;
  /**
   * True while the operator has paused the guest, which then stays paused. The value is what this agent found; from the
   * end of the stream on it is what QEMU's migration found. The journal has this value before QEMU is told to complete.
   */
  paused: boolean;
  /** How many bytes of padding the measurement of the link has sent. */
  probeBytes = 0;
  /** True once SHUT was said. */
  private isShut = false;
  /** QEMU's migration settings as they were found. Set when the journal has them, before they are changed. */
  settings: SavedSettings | undefined;
  /**
   * What the agent needs to go on with a broken post-copy, as the journal has it; undefined until post-copy begins.
   * While it is defined, this agent has stopped the guest, and must start it again if the guest stays here.
   */
  stoppedWith: SourcePostcopy | undefined;
  /**
   * True once QEMU's monitor is closed. If QEMU's stream was read to its end before, the guest can still be saved at
   * the destination.
   */
  qemuLost = false;
  /** True once QEMU's stream was read to its end. */
  private isRead = false;
  /** True once the whole stream was given to the link. */
  private complete = false;
  /** True once commit() was called. */
  private committed = false;
  private readonly abort = new AbortController();
  private readonly zstd: ZstdPool | undefined;
  private readonly keptMemory: KeptMemory | undefined;
  /** The session's memory, until it is given back. */
  private kernels: PageKernels | undefined;
  /** True once stop() was called: faults count no more. */
  private closed = false;
  private readonly watch: SilenceDetector;
  /** Asks the destination for its time now and then, so that its silence is noticed. */
  private readonly asking: Timer;
  private readonly clock: Clock;

  constructor(parts: SessionOptions) {
    const { cx, qmp, contract, channel, runs } = parts;
    this.qmp = qmp;
    this.clock = cx.clock;
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
    this.asking = cx.clock.every(ASK_EVERY_MS, () => void this.inbox.ping());

    const assembly = buildSession(parts, {
      meter: this.meter,
      linkIsDown: () => channel.isCut || this.watch.isSilent(cx.clock.monotonicMs(), this.meter.knownRoundTripMs),
      onOutlook: (outlook) => parts.onOutlook(outlook),
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
    this.kernels = assembly.kernels;
    this.keptMemory = cx.keptMemory;
    this.inbox.postcopy = this.postcopy;
  }

  /**
   * Called when the link is cut, and when it is back. The migration goes on during a cut: pages are captured and
   * coalesced. The link's rate is measured again after the cut.
   */
  private linkChanged(connected: boolean, { cx, onCut }: SessionOptions): void {
    cx.log.warn({ connected, ...this.channel.interruptions }, connected ? "the link is back" : "the link is lost");
    this.meter.interrupted();
    if (connected) this.inbox.reconnected();
    else onCut(this.signal, (fault) => this.gone(fault));
  }

  /**
   * Takes a fault of QEMU or its stream. After QEMU's stream was read to its end, QEMU has given everything, and the
   * fault counts for nothing: the state *retiring* finds out what QEMU does then.
   */
  private qemuFailed(fault: MigrationFault): void {
    if (!this.complete && !this.isRead) void whyQemuFailed(this.qmp, fault).then((why) => this.fail(why));
  }

  /** What the journal keeps of this session, so that the guest can be left as it was found. */
  get kept(): Kept {
    return { settings: this.settings, paused: this.paused, postcopy: this.stoppedWith };
  }

  /** Is aborted with the first fault. */
  get signal(): AbortSignal {
    return this.abort.signal;
  }

  /**
   * Called when the journal says that the guest is granted. From then on the session is not ended by an operator's
   * `cancel`, nor, in precopy, by a destination that does not dial again.
   */
  commit(): void {
    this.committed = true;
  }

  /**
   * Takes the fault that the destination does not dial again. In post-copy the state *serving* waits for it. In precopy
   * the fault counts for nothing after the grant, because the destination is then asked by calls.
   */
  private gone(fault: MigrationFault): void {
    if (this.isPostcopy) this.fail(fault);
    else this.revocable(fault);
  }

  /** Takes a fault that counts only before the grant. */
  private revocable(fault: MigrationFault): void {
    if (!this.committed) this.fail(fault);
  }

  /** Aborts `signal`, unless another fault has done so or the session is stopped. */
  fail(fault: MigrationFault): void {
    if (!this.closed) this.abort.abort(fault);
  }

  /**
   * Lets QEMU stop the guest and send the rest. This does not wait for QMP's answers, so that QEMU's stream is read
   * meanwhile: the agent must never wait for an answer of QEMU's main loop while QEMU's socket is full.
   */
  letStop(): void {
    this.intake.acknowledgeSwitchover();
    this.capture.beginFinal();
    allowStop(this.qmp).catch((thrown: unknown) => this.qemuFailed(MigrationFault.from(thrown)));
  }

  /**
   * Switches to post-copy: stops the guest, whose missing pages follow while it runs at the destination.
   *
   * 1. The session waits until little is on its way (the shallow credit), because the package queues behind everything
   *    that is on its way.
   * 2. Meanwhile QEMU's stream is left unread for longer than a turn of QEMU's migration loop lasts. QEMU then ends its
   *    turn with the next pages that are read.
   * 3. The guest is stopped, the stream is read on, and the switchover is acknowledged.
   *
   * A QEMU that has no page left to send completes its migration as in precopy: `ended` then resolves, and `packaged`
   * does not.
   * @param note writes into the journal that this agent stops the guest; called before the stop. Called with undefined,
   *   it removes this note from the journal
   * @throws MigrationFault `guest-not-running` if somebody else has just paused the guest, because nothing could tell
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
    await orAborted(Promise.all([shallow, this.clock.sleep(QEMU_TURN_MS), note(record)]), this.signal);
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

  /** Tells the destination that the stream has ended, when all of it was given to the link. Resolves then. */
  endWhenRead(): Promise<void> {
    return this.ended.promise.then(() => {
      this.channel.send({ kind: "endOfStream", lastSequence: this.sender.sequence });
    });
  }

  /** True once QEMU's package has come: the pages that are left follow after the hand-over. */
  get isPostcopy(): boolean {
    return this.postcopy?.isActive === true;
  }

  /**
   * Called when the link was measured: acknowledgements go to the sender from now on.
   * @param bytes how many bytes of padding were sent
   */
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

  /** Ends capture, sending and compression. The monitor and the channel stay open. */
  async stop(): Promise<void> {
    this.closed = true;
    this.clock.cancel(this.asking);
    this.capture.stop();
    this.sender.stop();
    await this.intake.close();
    await this.zstd?.release();
    this.giveMemoryBack();
  }

  /**
   * Keeps the memory for the next session, unless a fault has ended this session: a part of this session may still use
   * the memory then.
   */
  private giveMemoryBack(): void {
    const { kernels, keptMemory } = this;
    this.kernels = undefined;
    if (kernels === undefined || this.signal.aborted) return;
    void keptMemory?.put(kernels, this.scheduler.pages.usedEnd);
  }
}
