/**
 * Watches a copy that runs: gathers the figures from which the switch policy decides, passes the decisions of the
 * policy on, reports when the copy stalls, and estimates when the migration will end. Nothing here runs for each page.
 * In the first pass `backlogMs` and `arenaMs` are read once for each read of QEMU's socket.
 */
import type { Clock } from "../../shared/runtime/clock.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import type { LinkMeter } from "../link/link-meter.ts";
import type { FrameSender } from "../send/frame-sender.ts";
import type { PrecopyScheduler } from "../send/precopy-scheduler.ts";
import { estimateMs, sendingMs } from "./downtime-estimate.ts";
import type { CopyState, EtaEstimator } from "./eta.ts";
import type { Decision, Observation } from "./observation.ts";
import type { SwitchPolicy } from "./switch-policy.ts";

/** The parts of the precopy scheduler that are read: the pages that wait, and the pages that were sent. */
type ObservedPages = Pick<
  PrecopyScheduler,
  | "holdPages"
  | "hasWork"
  | "workBytes"
  | "residualPages"
  | "residualBytes"
  | "bytesPerDirtyPage"
  | "resendCostIsMeasured"
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
  /** The most pages to hold, whatever the policy would like: a fraction of the arena. */
  readonly holdPagesMax: number;
  readonly outlook: EtaEstimator;
  readonly clock: Pick<Clock, "monotonicMs">;
  /** How many pages the guest has, in all RAM blocks. */
  readonly pageCount: number;
  /** Raw bytes over encoded bytes, as measured lately. */
  readonly compressionRatio: () => number;
  /** How many frames were compressed so far. */
  readonly compressedFrames: () => number;
  /** True while nothing is heard from the destination: the guest is not stopped then, whatever the figures say. */
  readonly linkIsDown: () => boolean;
  /** True while the guest stands still: QEMU then completes by itself as soon as it has sent everything. */
  readonly standsStill: () => boolean;
  /**
   * Called with what the operator should know of how the copy will go on, when that changes; with an empty text when
   * there is nothing to say any more.
   */
  readonly onOutlook: (outlook: string) => void;
  /** Called when the copy begins to stall, and when it converges again, with what was observed then. */
  readonly onStall: (stalled: boolean, seen: Observation) => void;
}

/**
 * The cost of capturing, encoding and applying a page, as a multiple of the cost of encoding it. Only encoding is
 * measured; capturing and applying together cost about as much.
 */
const COST_OF_ENCODE = 2;
/**
 * How many frames must be compressed after the first pass until the compression ratio describes the frames of the later
 * passes. The ratio is a moving average, in which the newest frame counts for a fifth (CompressionChooser).
 */
const RATIO_FRAMES = 12;
/** The shortest time between two calls of `EtaEstimator.measure()`, seconds. */
const MEASURE_SECONDS = 0.1;
/** How often the remaining time is estimated, seconds. Between two estimates it is counted down. */
const ETA_SECONDS = 0.2;

export class CopyObserver {
  /** How many pages the last section of QEMU's stream had. */
  sweptPages = 0;
  /** True once QEMU's stream has come as far as its list of RAM blocks. */
  begun = false;
  /** True once every page that QEMU sends was captured at least once. PrecopyCapture sets it. */
  firstPassDone = false;
  /** The estimated downtime if the guest were stopped now, milliseconds; 0 while the guest is paused. */
  estimatedDowntimeMs = 0;
  /** True while the estimated downtime fits the target, so that the switch may be near. */
  fits = false;
  private readonly parts: CopyObserverOptions;
  private readonly startedMs: number;
  private stalled = false;
  /** The outlook of which onOutlook was told last. */
  private saidOutlook = "";
  /** The compression ratio of frames of whole pages, as it was last read in the first pass. */
  private wholeRatio = 1;
  /** How many frames were compressed in the first pass. */
  private wholeFrames = 0;
  private measuredAt = 0;
  private decidedMs: number | undefined;
  private eta: { readonly seconds: number | undefined; readonly at: number } | undefined;

  constructor(parts: CopyObserverOptions) {
    this.parts = parts;
    this.startedMs = parts.clock.monotonicMs();
  }

  /** Notes that the first page is about to come. */
  begins(): void {
    this.begun = true;
    this.parts.outlook.begins(this.nowSeconds);
  }

  /** Takes how much memory the guest's QEMU has in use, bytes; undefined where that is not known. */
  resident(bytes: number | undefined): void {
    if (bytes !== undefined) this.parts.outlook.resident(bytes);
  }

  /**
   * Notes that a RAM section of the stream has ended.
   * @param pages how many pages the section had
   * @param drained true when the section left no page dirty that QEMU knew of
   */
  section(pages: number, drained: boolean): void {
    this.sweptPages = pages;
    this.parts.outlook.section(pages, drained, !this.firstPassDone, this.nowSeconds);
  }

  /**
   * Gathers the figures from which the policy decides.
   * @param drained true when a section has just ended and left no page dirty that QEMU knew of
   */
  observe(drained: boolean): Observation {
    const { scheduler, sender, meter, compressionRatio, compressedFrames, linkIsDown, standsStill } = this.parts;
    const ratio = compressionRatio();
    // frames of deltas, which come after the first pass, do not show how whole pages compress
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
      resendCostIsMeasured:
        scheduler.resendCostIsMeasured &&
        (this.wholeFrames === 0 || compressedFrames() - this.wholeFrames >= RATIO_FRAMES),
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
   * How many hot pages to leave pending. Held pages must never fill the arena, because nothing would then make room in
   * it. No page of a paused guest is held, because a paused guest writes no later version. No page is held either
   * before the scheduler has measured what a page costs that is sent again, because until then the cost of sending held
   * pages is not known.
   */
  holdPages(seen: Observation): number {
    if (seen.paused || !this.parts.scheduler.resendCostIsMeasured) return 0;
    return Math.min(this.parts.policy.holdPages(seen), this.parts.holdPagesMax);
  }

  /** Lets the policy decide on what was observed, and reports when the copy begins to stall or converges again. */
  decide(seen: Observation): Decision {
    const { policy, onStall } = this.parts;
    // a guest that stands still has no downtime
    this.estimatedDowntimeMs = seen.paused ? 0 : estimateMs(seen);
    this.fits = policy.fits(this.estimatedDowntimeMs);
    this.measure();
    const decision = policy.decide(seen);
    const stalled = policy.stalledMs(seen.elapsedMs) > 0;
    if (stalled !== this.stalled) onStall(stalled, seen);
    this.stalled = stalled;
    return decision;
  }

  /**
   * Notes that the guest may be stopped from now on. If the first pass is done, the remaining time is then counted down
   * and not estimated any more.
   */
  decided(): void {
    this.decidedMs = this.elapsedMs;
    const standing = this.standing();
    this.parts.outlook.decided(standing, estimateMs(standing), this.nowSeconds);
    this.eta = undefined;
  }

  /** The estimated time until the guest runs at the destination, seconds; undefined where no end is in sight. */
  get etaSeconds(): number | undefined {
    if (this.stalledMs > 0) return undefined;
    const now = this.nowSeconds;
    if (this.eta === undefined || now - this.eta.at >= ETA_SECONDS)
      this.eta = { seconds: this.parts.outlook.etaSeconds(this.standing(), now), at: now };
    const { seconds, at } = this.eta;
    return seconds === undefined ? undefined : Math.max(0, seconds - (now - at));
  }

  /** How long the link and the agents need for the pages that wait to be sent and are not held, milliseconds. */
  get backlogMs(): number {
    const { scheduler, meter, compressionRatio } = this.parts;
    const bytes = scheduler.workBytes / compressionRatio();
    const pages = Math.max(0, scheduler.residualPages() - scheduler.holdPages);
    return sendingMs(bytes, meter.bytesPerSecond, pages, this.microsPerPage);
  }

  /** How long the link needs for a full arena of whole pages, milliseconds. */
  get arenaMs(): number {
    const { pendingCount, pendingRoom } = this.parts.scheduler.pages;
    const bytes = ((pendingCount + pendingRoom) * PAGE_SIZE) / this.wholeRatio;
    return (1000 * bytes) / Math.max(1, this.parts.meter.bytesPerSecond);
  }

  /** How long the copy has been stalled, milliseconds; 0 while it converges, and once the switch was decided. */
  get stalledMs(): number {
    return this.decidedMs === undefined ? this.parts.policy.stalledMs(this.elapsedMs) : 0;
  }

  /** How long the copy was stalled in total, until the switch was decided, milliseconds. */
  get totalStalledMs(): number {
    return this.parts.policy.totalStalledMs(this.decidedMs ?? this.elapsedMs);
  }

  private measure(): void {
    const now = this.nowSeconds;
    if (now - this.measuredAt < MEASURE_SECONDS) return;
    this.measuredAt = now;
    const standing = this.standing();
    this.parts.outlook.measure(standing, now);
    const { policy, onOutlook } = this.parts;
    policy.foresee(this.parts.outlook.prospects(standing, now), standing.elapsedMs);
    const outlook = policy.outlook(standing.elapsedMs);
    if (outlook !== this.saidOutlook) onOutlook(outlook);
    this.saidOutlook = outlook;
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
      wholePageBytes: PAGE_SIZE / this.wholeRatio,
    };
  }
}
