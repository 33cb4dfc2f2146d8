/**
 * Estimates when a running migration will end: the model of shared/model (docs/design/model.md), fed with what the
 * migration has measured so far. Pure: times are passed in, seconds.
 *
 * Nothing here runs once per page. What the guest dirties is read off the sections of QEMU's stream. QEMU syncs its
 * bitmap after each section that drained the bitmap, so the pages that come after a sync were dirtied between this sync
 * and the one before it.
 */
import { curveOfSamples, DirtyWindows } from "../../shared/model/dirty-curve.ts";
import { USUAL_COSTS, USUAL_POSTCOPY } from "../../shared/model/observation.ts";
import { closeIn, copyDirtied, type PassCosts } from "../../shared/model/passes.ts";
import { ROUND_TRIPS, SWEEP_SECONDS } from "../../shared/model/switchover.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import type { Prospects } from "./auto-choice.ts";
import type { Observation } from "./observation.ts";

/** How the copy stands, beside what the switch policy observes. */
export interface CopyState extends Observation {
  /** How many pages the guest has, in all RAM blocks. */
  readonly pageCount: number;
  /** How many pages have come at least once. */
  readonly seenPages: number;
  /** How many pages with content were sent or are pending; a page that was sent several times counts each time. */
  readonly capturedContentPages: number;
  /** How many pages with content were sent; a page that was sent several times counts each time. */
  readonly sentContentPages: number;
  /** How many of `sentContentPages` were sent whole. */
  readonly sentFullPages: number;
  /** How many pending pages have no base, and so will be sent whole. */
  readonly residualFullPages: number;
  /** How many hot pages may be held. */
  readonly holdPages: number;
  /** Encoded bytes of a page that is sent whole, as measured in the first pass. */
  readonly wholePageBytes: number;
}

export interface EtaOptions {
  readonly downtimeTargetMs: number;
  /** What a switchover costs whatever the residual, milliseconds. */
  readonly fixedDowntimeMs: number;
  /** The most syncs of QEMU's bitmap a second (`transfer.syncRate`). */
  readonly syncsPerSecond: number;
}

/**
 * The fraction of the copied pages that is taken to be dirty again when the first pass ends. What the guest really
 * dirties is not seen before that.
 */
const UNSEEN_DIRTIED = 0.1;
/**
 * How much of the memory that a QEMU has in use is not the guest's, bytes. The figure is rough, and under TCG QEMU has
 * more memory of its own.
 */
const OVERHEAD_BYTES = 64 << 20;
/** The weight of the newest measurement in `secondsPerPage`. */
const SMOOTHING = 0.3;
/** The shortest time over which the agents' own speed is measured, seconds. */
const SPEED_SECONDS = 0.1;
/** The fewest pages from which the agents' own speed is measured. */
const SPEED_PAGES = 256;
/**
 * The guest still dirties too much when the pages of a pass that were read so far take more than so many times the
 * downtime target. Once, and a guest that only just does not fit would count.
 */
const DIRTIES_STILL = 2;
/** A measurement with this fraction of whole pages, or more, says nothing about pages sent again, and is dropped. */
const FULL_SHARE = 0.1;

export class EtaEstimator {
  private readonly windows = new DirtyWindows();
  private readonly plan: EtaOptions;
  private beganAt = 0;
  /** When the bitmap was last drained, seconds on the clock that the caller passes in. */
  private drainedAt = 0;
  /**
   * Seconds between `drainedAt` and the time when the bitmap was drained before that: the pages that come now were
   * dirtied in this time.
   */
  private lastWindow = 0;
  /** How many pages have come since `drainedAt`. */
  private pages = 0;
  /** How many windows were noted. The first is the first pass, in which the guest may have done something else. */
  private windowsNoted = 0;
  /** How long the agents take for a page that is sent again, seconds. */
  private secondsPerPage = USUAL_COSTS.microsPerAgain / 1e6;
  /** The moment of the last measurement of the agents' speed, and the counts at that moment. */
  private mark = { seconds: 0, sent: 0, full: 0, backlogged: false };
  /** The most pages that can have content, by the memory that QEMU has in use. */
  private mostContentPages = Number.POSITIVE_INFINITY;
  /** How long the first pass took for each page with content that it sent, seconds. */
  private firstSecondsPerPage = USUAL_COSTS.microsPerFirstCopy / 1e6;
  /**
   * When the guest will run at the destination, seconds on the caller's clock; undefined until the switchover was
   * decided.
   */
  private endsAt: number | undefined;

  constructor(plan: EtaOptions) {
    this.plan = plan;
  }

  /** Notes that the first page is about to come. */
  begins(nowSeconds: number): void {
    this.beganAt = nowSeconds;
    this.drainedAt = nowSeconds;
  }

  /** Takes how much memory QEMU has in use, bytes: no more of the guest's pages can have content. */
  resident(bytes: number): void {
    this.mostContentPages = Math.max(0, bytes - OVERHEAD_BYTES) / PAGE_SIZE;
  }

  /**
   * Notes that a RAM section of QEMU's stream has ended.
   * @param pages how many pages the section had
   * @param drained true when the section left no page dirty that QEMU knew of
   * @param firstPass true in the first pass, in which every page comes, dirtied or not
   */
  section(pages: number, drained: boolean, firstPass: boolean, nowSeconds: number): void {
    this.pages += pages;
    if (!drained) return;
    if (!firstPass && this.lastWindow > 0) {
      this.windows.note(this.lastWindow, this.pages, nowSeconds);
      this.windowsNoted++;
    }
    this.lastWindow = nowSeconds - this.drainedAt;
    this.drainedAt = nowSeconds;
    this.pages = 0;
  }

  /**
   * Measures how long the link, zstd and the agents together take for a page: for a page of the first pass, and for a
   * page that is sent again. The latter is measured only over times in which pages wait to be sent. Called a few times
   * a second.
   */
  measure(standing: CopyState, nowSeconds: number): void {
    const { sentContentPages: sent, backlogged, firstPassDone } = standing;
    const zeroSeconds = ((standing.seenPages - standing.capturedContentPages) * USUAL_COSTS.microsPerZeroPage) / 1e6;
    if (!firstPassDone && sent >= SPEED_PAGES)
      this.firstSecondsPerPage = Math.max(0, nowSeconds - this.beganAt - zeroSeconds) / sent;
    const seconds = nowSeconds - this.mark.seconds;
    const pages = sent - this.mark.sent;
    const full = standing.sentFullPages - this.mark.full;
    if (seconds < SPEED_SECONDS) return;
    if (backlogged && this.mark.backlogged && pages >= SPEED_PAGES && full < FULL_SHARE * pages)
      this.secondsPerPage += SMOOTHING * (seconds / pages - this.secondsPerPage);
    this.mark = { seconds: nowSeconds, sent, full: standing.sentFullPages, backlogged };
  }

  /**
   * Notes that the switchover was decided: the remaining time is counted down from now on. If the decision comes before
   * the first pass is done, as with stop-and-copy, the remaining time is still estimated.
   */
  decided(standing: CopyState, downtimeMs: number, nowSeconds: number): void {
    if (standing.firstPassDone) this.endsAt = nowSeconds + (USUAL_COSTS.switchMs + downtimeMs) / 1000;
  }

  /** Seconds until the guest runs at the destination; undefined where no end is in sight. */
  etaSeconds(standing: CopyState, nowSeconds: number): number | undefined {
    if (this.endsAt !== undefined) return Math.max(0, this.endsAt - nowSeconds);
    if (standing.linkIsDown || standing.pageCount === 0) return undefined;
    if (!standing.firstPassDone) return this.inFirstPass(standing);
    const backlog = this.backlogSeconds(standing);
    const after = this.afterBacklog(standing, backlog, nowSeconds);
    return after === undefined ? undefined : backlog + after;
  }

  /**
   * Compares precopy, if it goes on, with post-copy, if it begins now.
   * @returns undefined while nothing can be said: in the first pass; before pages that were sent again have shown what
   *   they cost, and before the guest was seen to dirty too much after the first pass as well; while the link is down
   *   or the guest is paused; and where a switchover takes longer than the downtime target with nothing left to send
   */
  prospects(standing: CopyState, nowSeconds: number): Prospects | undefined {
    const { firstPassDone, linkIsDown, paused, resendCostIsMeasured, bytesPerSecond } = standing;
    const curve = this.curve(standing.pageCount, nowSeconds);
    if (!firstPassDone || linkIsDown || paused || !resendCostIsMeasured || this.endsAt !== undefined) return undefined;
    if (curve === undefined || !this.dirtiesStill(standing)) return undefined;
    if (this.downtimeSeconds(standing, 0) >= this.plan.downtimeTargetMs / 1000) return undefined;
    const { postcopyFixedDowntimeMs, postcopyFaultOverhead } = USUAL_POSTCOPY;
    const ofThisPass = Math.max(0, curve.pagesWithin(this.lastWindow) - this.pages);
    // post-copy discards the bases, so it sends what is left whole: what was captured, and what QEMU still has
    const left = standing.residualPages + ofThisPass + curve.pagesWithin(nowSeconds - this.drainedAt);
    const wholeSeconds = Math.max(standing.wholePageBytes / Math.max(1, bytesPerSecond), this.firstSecondsPerPage);
    const onItsWay = standing.inFlightBytes / Math.max(1, bytesPerSecond);
    const precopySeconds = this.etaSeconds(standing, nowSeconds);
    const fixedSeconds = (postcopyFixedDowntimeMs + ROUND_TRIPS * standing.roundTripMs) / 1000;
    return {
      precopySeconds:
        precopySeconds === undefined ? undefined : precopySeconds + ofThisPass * this.againSeconds(standing),
      postcopySeconds: onItsWay + fixedSeconds + left * wholeSeconds * (1 + postcopyFaultOverhead),
      dirtiedBytesPerSecond: PAGE_SIZE * curve.pagesWithin(1),
      encodedBytesPerSecond: standing.bytesPerPage * curve.pagesWithin(1),
      linkBytesPerSecond: bytesPerSecond,
    };
  }

  /**
   * Tells whether the guest was seen after the first pass as well: by a window that lies behind it, or, over a slow
   * link, by so many pages of the pass that is being read that they alone take longer than the downtime target allows.
   */
  private dirtiesStill(standing: CopyState): boolean {
    const readSeconds = this.pages * this.againSeconds(standing);
    return this.windowsNoted > 1 || readSeconds > (DIRTIES_STILL * this.plan.downtimeTargetMs) / 1000;
  }

  private curve(mostPages: number, nowSeconds: number) {
    const samples = this.windows.samples(nowSeconds);
    return samples.length === 0 ? undefined : curveOfSamples(samples, mostPages);
  }

  private inFirstPass(standing: CopyState): number | undefined {
    const { seenPages, capturedContentPages, residualPages, pageCount } = standing;
    if (seenPages === 0 || this.firstSecondsPerPage === 0) return undefined;
    const zeroSeconds = USUAL_COSTS.microsPerZeroPage / 1e6;
    const contentShare = Math.min(1, capturedContentPages / seenPages);
    const unseen = Math.max(0, pageCount - seenPages);
    // a guest uses its memory from both ends, so the share of pages with content so far says little about the rest
    const unseenContent = Math.min(unseen * contentShare, Math.max(0, this.mostContentPages - capturedContentPages));
    const left = (unseenContent + residualPages) * this.firstSecondsPerPage + (unseen - unseenContent) * zeroSeconds;
    const dirtied = UNSEEN_DIRTIED * (capturedContentPages + unseenContent);
    return left + dirtied * this.againSeconds(standing) + this.endSeconds(standing, 0);
  }

  private afterBacklog(standing: CopyState, backlog: number, nowSeconds: number): number | undefined {
    const curve = this.curve(standing.pageCount, nowSeconds);
    if (curve === undefined) return this.endSeconds(standing, 0);
    const secondsPerPage = this.againSeconds(standing);
    const costs: PassCosts = {
      secondsPerPage: () => secondsPerPage,
      bytesPerPage: () => standing.bytesPerPage,
      periodSeconds: 1 / this.plan.syncsPerSecond,
      heldPages: standing.holdPages,
      stopPages:
        (this.plan.downtimeTargetMs / 1000 - this.downtimeSeconds(standing, 0)) / this.stoppedSeconds(standing),
    };
    const passes = copyDirtied(curve, costs, Math.max(backlog, nowSeconds - this.drainedAt, costs.periodSeconds));
    if (!passes.converges) return undefined;
    const closing = closeIn(curve, costs, passes.lastSeconds, SWEEP_SECONDS);
    const residual = curve.pagesWithin(closing.lastSeconds);
    return passes.seconds + closing.seconds + this.endSeconds(standing, residual);
  }

  /** Returns the time from the decision to RESUME, seconds. */
  private endSeconds(standing: CopyState, residualPages: number): number {
    return USUAL_COSTS.switchMs / 1000 + this.downtimeSeconds(standing, residualPages);
  }

  private downtimeSeconds(standing: CopyState, residualPages: number): number {
    const constantMs = this.plan.fixedDowntimeMs + ROUND_TRIPS * standing.roundTripMs;
    return constantMs / 1000 + residualPages * this.stoppedSeconds(standing);
  }

  /**
   * Returns how long a page takes while the guest is stopped, seconds: then the link and the agents work one after the
   * other.
   */
  private stoppedSeconds({ bytesPerPage, bytesPerSecond, microsPerPage }: CopyState): number {
    return Math.max(1e-9, bytesPerPage / Math.max(1, bytesPerSecond) + microsPerPage / 1e6);
  }

  /**
   * Returns how long a page takes that is sent again while the guest runs, seconds: then the link and the agents work
   * side by side.
   */
  private againSeconds({ bytesPerPage, bytesPerSecond }: CopyState): number {
    return Math.max(bytesPerPage / Math.max(1, bytesPerSecond), this.secondsPerPage);
  }

  private backlogSeconds(standing: CopyState): number {
    if (!standing.backlogged) return 0;
    const { residualBytes, inFlightBytes, bytesPerSecond, residualPages, residualFullPages, holdPages } = standing;
    const again = Math.max(0, residualPages - residualFullPages - holdPages);
    const agents = residualFullPages * this.firstSecondsPerPage + again * this.secondsPerPage;
    return Math.max((residualBytes + inFlightBytes) / Math.max(1, bytesPerSecond), agents);
  }
}
