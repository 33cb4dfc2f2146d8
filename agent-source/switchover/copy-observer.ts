/**
 * The watch over a copy that runs: what the policy is told, what it decides, whether it gets anywhere, and when it is likely to
 * end. Nothing here is done per page.
 */
import type { Clock } from "../../shared/runtime/clock.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import type { LinkMeter } from "../link/link-meter.ts";
import type { FrameSender } from "../send/frame-sender.ts";
import type { PrecopyScheduler } from "../send/precopy-scheduler.ts";
import type { CopyState, EtaEstimator } from "./eta.ts";
import { type Decision, type Observation, type SwitchPolicy, sendingMs } from "./switch-policy.ts";

/** What is read of the pages that wait and of those that were sent. */
type ObservedPages = Pick<
  PrecopyScheduler,
  "holdPages" | "hasWork" | "workBytes" | "residualPages" | "residualBytes" | "bytesPerDirtyPage" | "knowsAgain"
> & {
  readonly heat: Pick<PrecopyScheduler["heat"], "seenPages">;
  readonly total: Pick<PrecopyScheduler["total"], "fullPages" | "deltaPages">;
  readonly pages: Pick<PrecopyScheduler["pages"], "pendingCount" | "pendingRoom" | "pendingWithBase">;
};

export interface CopyObserverOptions {
  readonly scheduler: ObservedPages;
  readonly sender: Pick<FrameSender, "inFlightBytes" | "inFlightZeroPages" | "microsPerPage">;
  readonly meter: Pick<LinkMeter, "bytesPerSecond" | "knownRoundTripMs">;
  readonly policy: SwitchPolicy;
  /** Most pages to hold, whatever the policy would like: a part of the arena. */
  readonly holdPagesMax: number;
  readonly outlook: EtaEstimator;
  readonly clock: Pick<Clock, "monotonicMs">;
  /** Of the guest, in all blocks. */
  readonly pageCount: number;
  /** The agreed ratio of raw to encoded bytes, lately. */
  readonly compressionRatio: () => number;
  /** Frames that were compressed so far. */
  readonly compressedFrames: () => number;
  /** Nothing is heard from the destination: the guest is not stopped now, whatever the figures say. */
  readonly linkIsDown: () => boolean;
  /** The guest stands still, and QEMU completes by itself as soon as it has sent all. */
  readonly standsStill: () => boolean;
  /** It does not converge, or does so again; what was observed then. */
  readonly onStall: (stalled: boolean, seen: Observation) => void;
}

/** Capture and apply cost about as much as encoding: one measured part stands for the three. */
const COST_OF_ENCODE = 2;
/** Frames after which the ratio is that of what is in them now (CompressionChooser takes a fifth of each). */
const RATIO_FRAMES = 12;
const MEASURE_SECONDS = 0.1;
/** How often the end is estimated anew, and counted down between. */
const ETA_SECONDS = 0.2;

export class CopyObserver {
  /** Pages that the section before found dirty. */
  sweptPages = 0;
  begun = false;
  firstPassDone = false;
  estimatedDowntimeMs = 0;
  /** That fits the target: the next moments may be the one to switch at. */
  fits = false;
  private readonly parts: CopyObserverOptions;
  private readonly startedMs: number;
  private stalled = false;
  /** Of frames of whole pages, as the first pass has them. */
  private wholeRatio = 1;
  /** Compressed until then. */
  private wholeFrames = 0;
  private measuredAt = 0;
  private decidedMs: number | undefined;
  private eta: { readonly seconds: number | undefined; readonly at: number } | undefined;

  constructor(parts: CopyObserverOptions, startedMs: number) {
    this.parts = parts;
    this.startedMs = startedMs;
  }

  /** The first page is about to come. */
  begins(): void {
    this.begun = true;
    this.parts.outlook.begins(this.nowSeconds);
  }

  /** What the guest's QEMU has in use, bytes, when that is known. */
  resident(bytes: number | undefined): void {
    if (bytes !== undefined) this.parts.outlook.resident(bytes);
  }

  /** A RAM section of the stream ended. */
  section(pages: number, drained: boolean): void {
    this.sweptPages = pages;
    this.parts.outlook.section(pages, drained, !this.firstPassDone, this.nowSeconds);
  }

  /** @param drained a section ended with nothing left dirty */
  observe(drained: boolean): Observation {
    const { scheduler, sender, meter, compressionRatio, compressedFrames, linkIsDown, standsStill } = this.parts;
    const ratio = compressionRatio();
    // frames of deltas say nothing of whole pages
    if (!this.firstPassDone) {
      this.wholeRatio = ratio;
      this.wholeFrames = compressedFrames();
    }
    return {
      elapsedMs: this.elapsedMs,
      begun: this.begun,
      firstPassDone: this.firstPassDone,
      sweptPages: this.sweptPages,
      residualPages: scheduler.residualPages(),
      residualBytes: scheduler.residualBytes() / ratio,
      residualWholeBytes: (scheduler.residualPages() * PAGE_SIZE) / this.wholeRatio,
      sentPages: scheduler.total.fullPages + scheduler.total.deltaPages,
      backlogged: scheduler.hasWork,
      bytesPerPage: scheduler.bytesPerDirtyPage() / ratio,
      knowsAgain:
        scheduler.knowsAgain && (this.wholeFrames === 0 || compressedFrames() - this.wholeFrames >= RATIO_FRAMES),
      inFlightBytes: sender.inFlightBytes,
      inFlightZeroPages: sender.inFlightZeroPages,
      bytesPerSecond: meter.bytesPerSecond,
      roundTripMs: meter.knownRoundTripMs,
      microsPerPage: this.microsPerPage,
      drained,
      linkIsDown: linkIsDown(),
      paused: standsStill(),
    };
  }

  /**
   * Hot pages to leave pending. They must never fill the arena: nobody would make room. A paused guest makes no later version to wait
   * for, and what they will take is not known before some pages were sent again.
   */
  holdPages(seen: Observation): number {
    if (seen.paused || !this.parts.scheduler.knowsAgain) return 0;
    return Math.min(this.parts.policy.holdPages(seen), this.parts.holdPagesMax);
  }

  /** Says what the policy decides on what is observed now, and when it begins or ceases to get nowhere. */
  decide(seen: Observation): Decision {
    const { policy, onStall } = this.parts;
    // one that stands still has none
    this.estimatedDowntimeMs = seen.paused ? 0 : policy.estimateMs(seen);
    this.fits = policy.fits(this.estimatedDowntimeMs);
    const decision = policy.decide(seen);
    const stalled = policy.stalledMs(seen.elapsedMs) > 0;
    if (stalled !== this.stalled) onStall(stalled, seen);
    this.stalled = stalled;
    this.measure();
    return decision;
  }

  /** From now on the guest may be stopped: what is left is counted down. */
  decided(): void {
    this.decidedMs = this.elapsedMs;
    const standing = this.standing();
    this.parts.outlook.decided(standing, this.parts.policy.estimateMs(standing), this.nowSeconds);
    this.eta = undefined;
  }

  /** Until the guest runs at the destination, estimated; undefined where no end is in sight. */
  get etaSeconds(): number | undefined {
    if (this.stalledMs > 0) return undefined;
    const now = this.nowSeconds;
    if (this.eta === undefined || now - this.eta.at >= ETA_SECONDS)
      this.eta = { seconds: this.parts.outlook.etaSeconds(this.standing(), now), at: now };
    const { seconds, at } = this.eta;
    return seconds === undefined ? undefined : Math.max(0, seconds - (now - at));
  }

  /** What waits to be sent and is not held, milliseconds of the link and of the agents. */
  get backlogMs(): number {
    const { scheduler, meter, compressionRatio } = this.parts;
    const bytes = scheduler.workBytes / compressionRatio();
    const pages = Math.max(0, scheduler.residualPages() - scheduler.holdPages);
    return sendingMs(bytes, meter.bytesPerSecond, pages, this.microsPerPage);
  }

  /** What a full arena of whole pages takes, milliseconds of the link. */
  get arenaMs(): number {
    const { pendingCount, pendingRoom } = this.parts.scheduler.pages;
    const bytes = ((pendingCount + pendingRoom) * PAGE_SIZE) / this.wholeRatio;
    return (1000 * bytes) / Math.max(1, this.parts.meter.bytesPerSecond);
  }

  /** How long it has not converged; 0 while it does, and once it was decided. */
  get stalledMs(): number {
    return this.decidedMs === undefined ? this.parts.policy.stalledMs(this.elapsedMs) : 0;
  }

  /** The same, of all the copying. */
  get totalStalledMs(): number {
    return this.parts.policy.totalStalledMs(this.decidedMs ?? this.elapsedMs);
  }

  private measure(): void {
    const now = this.nowSeconds;
    if (now - this.measuredAt < MEASURE_SECONDS) return;
    this.measuredAt = now;
    this.parts.outlook.measure(this.standing(), now);
  }

  private get elapsedMs(): number {
    return this.parts.clock.monotonicMs() - this.startedMs;
  }

  private get nowSeconds(): number {
    return this.parts.clock.monotonicMs() / 1000;
  }

  private get microsPerPage(): number {
    return COST_OF_ENCODE * this.parts.sender.microsPerPage;
  }

  private standing(): CopyState {
    const { scheduler, pageCount } = this.parts;
    const sentContentPages = scheduler.total.fullPages + scheduler.total.deltaPages;
    return {
      ...this.observe(false),
      pageCount,
      seenPages: scheduler.heat.seenPages,
      capturedContentPages: sentContentPages + scheduler.pages.pendingCount,
      sentContentPages,
      sentFullPages: scheduler.total.fullPages,
      residualFullPages: scheduler.pages.pendingCount - scheduler.pages.pendingWithBase,
      holdPages: scheduler.holdPages,
    };
  }
}
