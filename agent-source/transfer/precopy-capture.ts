/**
 * Takes the pages of QEMU's stream in precopy and hands them to the scheduler. At the end of each section, and every
 * TICK_MS, it asks CopyObserver what to do: go on, send the waiting pages before QEMU syncs again, read at full speed,
 * pace the reading again, switch, or cancel.
 *
 * It paces QEMU's syncs: QEMU syncs its dirty bitmap when it has drained the bitmap (qemu-settings.ts), and blocks
 * while its stream is left unread (read-hold.ts).
 *
 * Not its job: which page is sent when (precopy-scheduler.ts), and the pages after post-copy's package
 * (postcopy-capture.ts).
 */
import { MemoryLayout } from "../../shared/page/geometry.ts";
import type { RamBlock } from "../../shared/protocol/messages.ts";
import type { StreamLayout } from "../../shared/protocol/ownership.ts";
import { GlobalState } from "../../shared/qemu/stream/global-state.ts";
import type { RamSetup, StreamSink } from "../../shared/qemu/stream/stream-reader.ts";
import { encodeRamEnd } from "../../shared/qemu/stream/stream-writer.ts";
import type { Clock, Timer } from "../../shared/runtime/clock.ts";
import { address, PAGE_SIZE, pageIndex } from "../../shared/units.ts";
import { DrainedSections } from "../capture/drained-sections.ts";
import { ReadHold } from "../capture/read-hold.ts";
import type { SyncPace } from "../capture/sync-pace.ts";
import type { FrameSender } from "../send/frame-sender.ts";
import type { PrecopyScheduler } from "../send/precopy-scheduler.ts";
import type { CopyObserver } from "../switchover/copy-observer.ts";
import type { Decision } from "../switchover/observation.ts";
import { checkBlocks } from "./session-options.ts";

export interface PrecopyCaptureOptions {
  /** The memory that the stream is read into. */
  readonly memory: Uint8Array;
  readonly scheduler: PrecopyScheduler;
  readonly sender: FrameSender;
  readonly observer: CopyObserver;
  readonly clock: Clock;
  /** The RAM blocks as QMP named them. Each block of the stream must be one of these. */
  readonly expectedBlocks: readonly RamBlock[];
  /** Bounds how often QEMU syncs its bitmap once the first pass is done. */
  readonly pace: SyncPace;
  /** Called with the guest's RAM blocks, before the first page. */
  readonly onLayout: (setup: RamSetup) => void;
  /** Called once, with the decision to switch or to cancel. */
  readonly onDecision: (decision: Decision) => void;
  readonly onFirstPassDone: () => void;
  /**
   * Called when the first byte was read that QEMU wrote with the guest stopped. The guest was stopped by QEMU's
   * migration, by this agent for post-copy, or by its operator before.
   */
  readonly onStopped: () => void;
  /** Called when the stream was read to its end. */
  readonly onEnd: () => void;
  /** True while the guest stands still: QEMU then completes by itself as soon as it has sent everything. */
  readonly standsStill: () => boolean;
  /** Reads QEMU's stream on, if reading had stopped. */
  readonly resumeIntake: () => void;
}

/** How often the heat of all pages is halved, milliseconds. */
const FADE_MS = 250;
/** How often the policy is asked, whether or not a section has ended, milliseconds. */
const TICK_MS = 50;

export class PrecopyCapture implements StreamSink {
  /** The guest's RAM blocks; undefined until the stream has listed them. */
  layoutSeen: MemoryLayout | undefined;
  /** How many pages were captured in the first pass; a page that came several times counts each time. */
  firstPassPages = 0;
  /** When lastPagesSent() was called for the first time, microseconds since the epoch; 0 before. */
  lastPagesSentUs = 0;
  readonly observer: CopyObserver;
  /**
   * Finds in QEMU's device state the run state that the guest had when QEMU's migration stopped it. The section with
   * the run state is one of the first of the device state.
   */
  readonly stoppedAs = new GlobalState();
  private readonly parts: PrecopyCaptureOptions;
  /** How many pages the section has had so far. */
  private sectionPages = 0;
  private readonly drained = new DrainedSections();
  private ramSectionId = 0;
  private lastFadeMs: number;
  private readonly ticker: Timer;
  /** True once the policy has decided to switch or to cancel: it is asked no more. */
  private decided = false;
  /** True once QEMU has synced its dirty bitmap since the first pass began. */
  private hasSynced = false;
  private readonly hold: ReadHold;

  constructor(parts: PrecopyCaptureOptions) {
    this.parts = parts;
    this.observer = parts.observer;
    const { pace, observer, standsStill, clock, resumeIntake } = parts;
    this.lastFadeMs = clock.monotonicMs();
    this.hold = new ReadHold({ pace, work: observer, standsStill, clock, onResume: resumeIntake });
    this.ticker = clock.every(TICK_MS, () => this.tick());
  }

  /**
   * Reads QEMU's last pages as fast as they come. Called when QEMU was told that it may stop the guest, or, for
   * post-copy, when it was told to stop the guest.
   */
  beginFinal(): void {
    this.hold.phase = "final";
    this.observer.decided();
    this.hold.resume();
  }

  /** Takes the layout of a post-copy that goes on after a break. Nothing is paced or decided any more. */
  resume(setup: Pick<RamSetup, "blocks" | "ramSectionId">): void {
    this.layoutSeen = new MemoryLayout(setup.blocks);
    this.ramSectionId = setup.ramSectionId;
    this.decided = true;
    this.hold.phase = "final";
    this.observer.firstPassDone = true;
    this.observer.decided();
  }

  /** Goes on with the capture if it has waited for room. Called when pages have left the arena. */
  roomMade(): void {
    this.hold.roomMade();
  }

  /** Ends all timers. */
  stop(): void {
    this.parts.clock.cancel(this.ticker);
    this.hold.stop();
  }

  /** True once every page has come that QEMU sends. Stop-and-copy has its first pass in the final phase. */
  get firstPassDone(): boolean {
    return this.observer.firstPassDone;
  }

  /**
   * Notes that QEMU begins a pass over its dirty bitmap (event MIGRATION_PASS). When the second pass has begun and the
   * bitmap was drained since, every page has come that QEMU sends. Pages that the guest's balloon calls free
   * (free-page-hint) never come.
   * @param pass the number of the pass, from 1 on
   */
  passBegins(pass: number): void {
    this.hasSynced ||= pass > 1;
  }

  /** The fraction of the guest's pages that have come, 0 to 1. It is 1 once the first pass is done. */
  get firstPassFraction(): number {
    if (this.firstPassDone) return 1;
    const { pageCount } = this.layoutSeen ?? { pageCount: 0 };
    return pageCount === 0 ? 0 : this.parts.scheduler.heat.seenPages / pageCount;
  }

  /** Asked before bytes that were read are parsed. @returns false to leave them unparsed until resumeIntake() */
  mayRead(): boolean {
    return !this.hold.beforeRead();
  }

  // ── StreamSink ──

  prologue(start: number, end: number): void {
    this.parts.sender.sendVerbatim(this.parts.memory.subarray(start, end), "head");
  }

  layout(setup: RamSetup): void {
    this.checkBlocks(setup);
    this.layoutSeen = new MemoryLayout(setup.blocks);
    this.ramSectionId = setup.ramSectionId;
    this.observer.begins();
    this.parts.onLayout(setup);
  }

  page(page: number, at: number): boolean {
    const { scheduler, sender } = this.parts;
    if (!scheduler.capture(pageIndex(page), address(at))) {
      sender.pump();
      if (!scheduler.capture(pageIndex(page), address(at))) return this.waitForRoom();
    }
    this.sectionPages++;
    return true;
  }

  zeroPage(page: number): boolean {
    const { scheduler, sender } = this.parts;
    if (!scheduler.captureZero(pageIndex(page))) {
      sender.pump();
      if (!scheduler.captureZero(pageIndex(page))) return this.waitForRoom();
    }
    this.sectionPages++;
    return true;
  }

  partEnd(): boolean {
    const pages = this.sectionPages;
    const drained = this.drained.next(pages);
    this.observer.section(pages, drained);
    this.sectionPages = 0;
    // QEMU 8.1, and QEMU 11 with post-copy enabled, sync while pages of the first pass still wait in the bitmap. Those
    // pages have all come when the bitmap is drained
    const hasAll = (this.hasSynced && drained) || this.firstPassFraction >= 1;
    const endsFirstPass = this.hold.phase === "paced" && !this.firstPassDone && hasAll;
    if (endsFirstPass) this.endFirstPass();
    this.parts.sender.pump();
    if (this.hold.phase === "final") return true;
    // the last section of the first pass says nothing of how many pages the next sweep will find
    this.consult(drained && !endsFirstPass);
    return !this.hold.afterSection(pages, drained, this.observer.fits);
  }

  stopped(): void {
    // the policy need not have decided: when the guest stands still, QEMU completes by itself, without an
    // acknowledgement
    this.hold.phase = "final";
    this.parts.onStopped();
  }

  ramEnd(): void {
    // stop-and-copy has its first pass in the final phase, and pages that the balloon calls free never come
    if (!this.firstPassDone) this.endFirstPass();
    this.parts.scheduler.holdPages = 0;
    this.parts.sender.hurry();
    void this.parts.sender.flushed().then(() => this.lastPagesSent());
    this.parts.sender.sendVerbatim(encodeRamEnd(this.ramSectionId), "device");
  }

  device(start: number, end: number): void {
    const bytes = this.parts.memory.subarray(start, end);
    this.stoppedAs.push(bytes);
    this.parts.sender.sendVerbatim(bytes, "device");
  }

  end(): void {
    this.parts.onEnd();
  }

  // ──

  /** The list of RAM blocks, for the journal. @throws TypeError before the stream has listed them */
  get streamLayout(): StreamLayout {
    if (this.layoutSeen === undefined) throw new TypeError("the stream has not listed its RAM blocks yet");
    const blocks = this.layoutSeen.blocks.map(({ name, pageCount }) => ({ name, byteLength: pageCount * PAGE_SIZE }));
    return { ramSectionId: this.ramSectionId, blocks };
  }

  /**
   * Notes when everything was handed over that the guest needs to run at the destination: in precopy when the last page
   * was given to the link, in post-copy when the package was queued.
   */
  lastPagesSent(): void {
    if (this.lastPagesSentUs === 0) this.lastPagesSentUs = this.parts.clock.nowUs();
  }

  /**
   * @throws MigrationFault `stream-unsupported` when the stream has a block that QEMU's monitor did not list with its
   *   length
   */
  checkBlocks(setup: Pick<RamSetup, "blocks">): void {
    checkBlocks(setup.blocks, this.parts.expectedBlocks);
  }

  /**
   * Asks the policy what to do, and does it.
   * @param drained true if a section has just ended that left no page dirty that QEMU knew of
   */
  private consult(drained: boolean): void {
    const { onDecision, sender, scheduler } = this.parts;
    const { observer } = this;
    if (this.decided) return;
    const seen = observer.observe(drained);
    scheduler.holdPages = observer.holdPages(seen);
    const decision = observer.decide(seen);
    if (drained) this.hold.drains(decision.kind === "drain");
    switch (decision.kind) {
      case "continue":
        return;
      case "drain":
        scheduler.holdPages = observer.holdPages(seen);
        sender.pump();
        return;
      case "close":
        this.hold.phase = "closing";
        return;
      case "pace":
        this.hold.phase = "paced";
        return;
      case "switch":
      case "cancel":
        this.decided = true;
        onDecision(decision);
        return;
    }
  }

  private endFirstPass(): void {
    this.observer.firstPassDone = true;
    this.firstPassPages = this.parts.scheduler.pages.captured;
    this.parts.onFirstPassDone();
  }

  private waitForRoom(): false {
    this.hold.forRoom();
    return false;
  }

  private tick(): void {
    const now = this.parts.clock.monotonicMs();
    while (now - this.lastFadeMs >= FADE_MS) {
      this.lastFadeMs += FADE_MS;
      this.parts.scheduler.fade();
    }
    // a deadline and the strategy stop-and-copy do not wait until a section ends
    if (this.hold.phase !== "final") this.consult(false);
    this.parts.sender.pump();
    this.hold.lookAgain();
  }
}
