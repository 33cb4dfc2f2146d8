/**
 * The feed of dirty pages, from QEMU's stream to frames: capture into the scheduler, pacing of QEMU's bitmap syncs, and
 * the moments at which copy-watch.ts is asked whether to switch.
 *
 * Pacing: QEMU syncs its bitmap when it has drained it (qemu-settings.ts), and blocks when nobody reads: feed-hold.ts.
 */
import { MemoryLayout } from "../shared/page/geometry.ts";
import type { RamBlock } from "../shared/protocol/messages.ts";
import type { StreamLayout } from "../shared/protocol/ownership.ts";
import { GlobalState } from "../shared/qemu/global-state.ts";
import type { RamSetup, StreamSink } from "../shared/qemu/stream-reader.ts";
import { encodeRamEnd } from "../shared/qemu/stream-writer.ts";
import type { Clock } from "../shared/runtime/clock.ts";
import { address, PAGE_SIZE, pageIndex } from "../shared/units.ts";
import type { CopyWatch } from "./copy-watch.ts";
import { DrainedSections } from "./drained-sections.ts";
import { FeedHold } from "./feed-hold.ts";
import type { FeedPace } from "./feed-pace.ts";
import { checkBlocks } from "./feed-parts.ts";
import type { FrameSender } from "./frame-sender.ts";
import type { PostcopyCapture } from "./postcopy-capture.ts";
import type { Decision } from "./switch-policy.ts";
import type { TransferScheduler } from "./transfer-scheduler.ts";

export interface EngineParts {
  /** That the stream is read in. */
  readonly memory: Uint8Array;
  readonly scheduler: TransferScheduler;
  readonly sender: FrameSender;
  readonly watch: CopyWatch;
  readonly clock: Clock;
  /** As QMP named them; the stream must list the same. */
  readonly expectedBlocks: readonly RamBlock[];
  /** Once the first pass is done. */
  readonly pace: FeedPace;
  /** Where post-copy may follow. */
  readonly postcopy?: PostcopyCapture | undefined;
  readonly announceLayout: (blocks: readonly RamBlock[], ramSectionId: number) => void;
  readonly onDecision: (decision: Decision) => void;
  readonly onFirstPassDone: () => void;
  /** QEMU makes its last section: the guest is stopped, by the migration or by somebody before it. */
  readonly onStopped: () => void;
  readonly onEnd: () => void;
  /** The guest stands still, and QEMU completes by itself as soon as it has sent all. */
  readonly standsStill: () => boolean;
  /** Reading was held and may go on. */
  readonly resumeIntake: () => void;
}

/** Heat halves this often. */
const FADE_MS = 250;
const TICK_MS = 50;

export class CopyEngine implements StreamSink {
  layoutSeen: MemoryLayout | undefined;
  /** Pages captured in the first pass, with repeats. */
  firstPassPages = 0;
  lastPagesSentUs = 0;
  /** QEMU's stream was read to its end. */
  streamEnded = false;
  readonly watch: CopyWatch;
  /** How the guest was stopped, once the device state has begun. */
  readonly stoppedAs = new GlobalState();
  private readonly parts: EngineParts;
  private sectionPages = 0;
  private readonly drained = new DrainedSections();
  private ramSectionId = 0;
  private lastFadeMs: number;
  private readonly ticker: NodeJS.Timeout;
  private decided = false;
  /** True once QEMU has synced its dirty bitmap since the first pass began. */
  private hasSynced = false;
  private readonly hold: FeedHold;

  constructor(parts: EngineParts, startedMs: number) {
    this.parts = parts;
    this.watch = parts.watch;
    this.lastFadeMs = startedMs;
    const { pace, watch, standsStill, clock, resumeIntake } = parts;
    this.hold = new FeedHold({ pace, work: watch, standsStill, clock, onResume: resumeIntake });
    this.ticker = setInterval(() => this.tick(), TICK_MS);
  }

  /** The switchover was acknowledged: QEMU's last pages come as fast as they can be read. */
  beginFinal(): void {
    this.hold.phase = "final";
    this.watch.decided();
    this.hold.resume();
  }

  /** Post-copy is taken up: nothing is paced or decided any more. */
  takeUp(setup: Pick<RamSetup, "blocks" | "ramSectionId">): void {
    this.layoutSeen = new MemoryLayout(setup.blocks);
    this.ramSectionId = setup.ramSectionId;
    this.decided = true;
    this.hold.phase = "final";
    this.watch.firstPassDone = true;
    this.watch.decided();
  }

  /** Pages left the arena: capture goes on if it waited for that. */
  roomMade(): void {
    this.parts.postcopy?.askOn();
    this.hold.roomMade();
  }

  stop(): void {
    clearInterval(this.ticker);
    this.hold.stop();
  }

  /** True once every page has come. Stop-and-copy has its first pass in the final phase. */
  get firstPassDone(): boolean {
    return this.watch.firstPassDone;
  }

  /**
   * Notes that QEMU begins a pass over its dirty bitmap (event MIGRATION_PASS). When the second pass has begun and the
   * bitmap was drained since, every page has come that QEMU sends. Pages that the guest's balloon calls free
   * (free-page-hint) never come.
   * @param pass 1, 2, 3 …
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

  // ── StreamSink ──

  prologue(start: number, end: number): void {
    this.parts.sender.sendVerbatim(this.parts.memory.subarray(start, end), "head");
  }

  layout(setup: RamSetup): void {
    this.checkBlocks(setup);
    this.layoutSeen = new MemoryLayout(setup.blocks);
    this.ramSectionId = setup.ramSectionId;
    this.parts.postcopy?.layout(setup);
    this.watch.begins();
    this.parts.announceLayout(setup.blocks, setup.ramSectionId);
  }

  page(page: number, at: number): boolean {
    const { scheduler, sender, postcopy } = this.parts;
    if (postcopy?.active) return postcopy.page(page, at) || this.waitForRoom();
    if (this.hold.beforeFirst()) return false;
    if (!scheduler.capture(pageIndex(page), address(at))) {
      sender.pump();
      if (!scheduler.capture(pageIndex(page), address(at))) return this.waitForRoom();
    }
    this.sectionPages++;
    return true;
  }

  zeroPage(page: number): boolean {
    const { scheduler, sender, postcopy } = this.parts;
    if (postcopy?.active) return postcopy.zeroPage(page) || this.waitForRoom();
    if (this.hold.beforeFirst()) return false;
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
    this.watch.section(pages, drained);
    this.sectionPages = 0;
    // QEMU 8.1, and QEMU 11 with post-copy enabled, sync while pages of the first pass still wait in the bitmap. Those
    // pages have all come when the bitmap is drained
    const hasAll = (this.hasSynced && drained) || this.firstPassFraction >= 1;
    const endsFirstPass = this.hold.phase === "first-pass" && hasAll;
    if (endsFirstPass) {
      this.hold.phase = "paced";
      this.watch.firstPassDone = true;
      this.firstPassPages = this.parts.scheduler.pages.captured;
      this.parts.onFirstPassDone();
    }
    this.parts.sender.pump();
    if (this.hold.phase === "final") {
      this.parts.postcopy?.askOn();
      return true;
    }
    // how many pages the first pass had at its end says nothing of what the next sweep will find
    this.consult(drained && !endsFirstPass);
    return this.hold.phase !== "paced" || !this.hold.behindSection(pages, drained, this.watch.fits);
  }

  stopped(): void {
    // without an acknowledgement too, of a guest that stands still: nothing is left to decide
    this.hold.phase = "final";
    this.parts.onStopped();
  }

  ramEnd(): void {
    if (this.parts.postcopy?.active) {
      this.parts.postcopy.ramEnd(this.ramSectionId);
      return;
    }
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
    this.streamEnded = true;
    if (this.parts.postcopy?.isGivenBack) {
      this.parts.onEnd();
      return;
    }
    void this.parts.sender.flushed().then(() => this.parts.onEnd());
  }

  // ──

  /** @throws TypeError before there is one */
  get streamLayout(): StreamLayout {
    if (this.layoutSeen === undefined) throw new TypeError("no layout yet");
    const blocks = this.layoutSeen.blocks.map(({ name, pageCount }) => ({ name, byteLength: pageCount * PAGE_SIZE }));
    return { ramSectionId: this.ramSectionId, blocks };
  }

  /** What the guest needs to run at the destination was handed to the link; of post-copy that is the package. */
  lastPagesSent(): void {
    if (this.lastPagesSentUs === 0) this.lastPagesSentUs = this.parts.clock.nowUs();
  }

  /** @throws MigrationFault `stream-unsupported` when the stream does not list what QEMU's monitor named */
  checkBlocks(setup: Pick<RamSetup, "blocks">): void {
    checkBlocks(setup.blocks, this.parts.expectedBlocks);
  }

  private consult(drained: boolean): void {
    const { onDecision, sender } = this.parts;
    const { watch } = this;
    if (this.decided) return;
    const seen = watch.observe(drained);
    sender.holdPages = watch.holdPages(seen);
    const decision = watch.decide(seen);
    if (drained) this.hold.drains(decision.kind === "drain");
    if (decision.kind !== "cancel" && seen.linkIsDown) {
      // closing reads as fast as it can, which is for moments
      if (this.hold.phase === "closing") this.hold.phase = "paced";
      return;
    }
    switch (decision.kind) {
      case "continue":
        return;
      case "drain":
        sender.holdPages = watch.holdPages(seen);
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
    // the deadline, and stop-and-copy, do not wait for a section to end
    if (this.hold.phase !== "final") this.consult(false);
    this.parts.sender.pump();
    this.hold.lookAgain();
  }

  /** Bytes of guest memory that were captured, with repeats. */
  get capturedBytes(): number {
    return this.parts.scheduler.pages.captured * PAGE_SIZE;
  }
}
