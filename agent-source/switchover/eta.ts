/**
 * When a running migration is likely to end: the model of shared/model, fed with what the migration has measured so far.
 * Pure: times are passed in, seconds.
 *
 * Nothing is done per page. What the guest dirties is read off the sections of QEMU's stream: each that drained the bitmap
 * is followed by a sync, so what comes behind a sync was dirtied between it and the one before.
 */
import { curveOfSamples, DirtyWindows } from "../../shared/model/dirty-curve.ts";
import { USUAL_COSTS } from "../../shared/model/observation.ts";
import { closeIn, copyDirtied, type PassCosts } from "../../shared/model/passes.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import type { Observation } from "./switch-policy.ts";

/** How the session stands, beside what the switch policy observes. */
export interface CopyState extends Observation {
  readonly pageCount: number;
  /** Pages that arrived at least once, and arrivals of a page with content. */
  readonly seenPages: number;
  readonly capturedContentPages: number;
  /** Pages with content that were sent, and of these, whole ones; of those that wait, the ones without a base. */
  readonly sentContentPages: number;
  readonly sentFullPages: number;
  readonly residualFullPages: number;
  readonly holdPages: number;
}

export interface EtaOptions {
  readonly downtimeTargetMs: number;
  readonly fixedDowntimeMs: number;
  readonly syncsPerSecond: number;
}

/** What a guest dirties is not seen before the first pass ends. Until then: this part of what was copied. */
const UNSEEN_DIRTIED = 0.1;
/** Of what a QEMU has in use, what is not the guest's memory; about, and under TCG more. */
const OVERHEAD_BYTES = 64 << 20;
const SWEEP_SECONDS = 0.005;
const ROUND_TRIPS = 2;
const SMOOTHING = 0.3;
/** Time over which the agents' own speed is measured, and pages that make it one. */
const SPEED_SECONDS = 0.1;
const SPEED_PAGES = 256;
/** With more whole pages than this among them, they say nothing of pages that are sent again. */
const FULL_SHARE = 0.1;

export class EtaEstimator {
  private readonly windows = new DirtyWindows();
  private readonly plan: EtaOptions;
  private beganAt = 0;
  /** The drained section before, and how long after the one before that it came. */
  private drainedAt = 0;
  private lastWindow = 0;
  private pages = 0;
  private secondsPerPage = USUAL_COSTS.microsPerAgain / 1e6;
  private mark = { seconds: 0, sent: 0, full: 0, backlogged: false };
  private mostContentPages = Number.POSITIVE_INFINITY;
  /** Of the first pass: seconds for each page with content that was sent. */
  private firstSecondsPerPage = USUAL_COSTS.microsPerFirstCopy / 1e6;
  private endsAt: number | undefined;

  constructor(plan: EtaOptions) {
    this.plan = plan;
  }

  /** The first page is about to come. */
  begins(nowSeconds: number): void {
    this.beganAt = nowSeconds;
    this.drainedAt = nowSeconds;
  }

  /** What QEMU has in use: no more of the guest's pages have content. */
  resident(bytes: number): void {
    this.mostContentPages = Math.max(0, bytes - OVERHEAD_BYTES) / PAGE_SIZE;
  }

  /** A RAM section of QEMU's stream ended. @param firstPass every page in it was there whether dirtied or not */
  section(pages: number, drained: boolean, firstPass: boolean, nowSeconds: number): void {
    this.pages += pages;
    if (!drained) return;
    if (!firstPass && this.lastWindow > 0) this.windows.note(this.lastWindow, this.pages, nowSeconds);
    this.lastWindow = nowSeconds - this.drainedAt;
    this.drainedAt = nowSeconds;
    this.pages = 0;
  }

  /** How fast pages go while some of them wait: link, zstd and agents together. To be called some times a second. */
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

  /** The switchover was decided: what is left is counted down; not before everything came once (stop-and-copy). */
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
    // memory is used from both ends, so the share so far says little of what comes
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

  /** From the decision to RESUME. */
  private endSeconds(standing: CopyState, residualPages: number): number {
    return USUAL_COSTS.switchMs / 1000 + this.downtimeSeconds(standing, residualPages);
  }

  private downtimeSeconds(standing: CopyState, residualPages: number): number {
    const constantMs = this.plan.fixedDowntimeMs + ROUND_TRIPS * standing.roundTripMs;
    return constantMs / 1000 + residualPages * this.stoppedSeconds(standing);
  }

  private stoppedSeconds({ bytesPerPage, bytesPerSecond, microsPerPage }: CopyState): number {
    return Math.max(1e-9, bytesPerPage / Math.max(1, bytesPerSecond) + microsPerPage / 1e6);
  }

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
