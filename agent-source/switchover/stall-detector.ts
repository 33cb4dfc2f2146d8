/**
 * Tells whether a migration converges or is stalled (docs/design/switchover.md#stalls). Pure: times are passed in,
 * milliseconds.
 *
 * The downtime is estimated all the time, as if the guest were stopped now. The estimate rises and falls within each
 * pass, and the switch is made at a local minimum. So time is cut into windows, and only the lowest estimate of each
 * window counts. A window is a *new low* when its lowest estimate is clearly below the low before. After several
 * windows without a new low the migration is stalled. A stalled migration goes on: a later new low ends the stall, and
 * a new low that fits the downtime target lets the migration end.
 *
 * In a stall the low is the lowest estimate of the last few windows. So a guest that was quiet for a while is
 * afterwards measured by what it does now.
 */

/**
 * The shortest window, milliseconds. A window ends only with an estimate, so a pass that takes longer makes a longer
 * window.
 */
const WINDOW_MS = 1000;
/** How many windows without a new low make a stall. */
const STALLED_WINDOWS = 4;
/** A new low is below the low before by at least this fraction of it. */
const MARGIN = 0.05;
/** In a stall a new low must be lower by at least this fraction: with MARGIN, noise would make stalls come and go. */
const MARGIN_TO_RESUME = 0.15;
/**
 * A window is also a new low when it is below the low by this fraction of the time since the low. The estimate is
 * mostly time of the link, so a link that works off a backlog lowers the estimate by up to a millisecond per
 * millisecond. A long backlog gets shorter by only a few percent in a window, and the migration does progress.
 */
const PACE = 0.1;

export class StallDetector {
  /** The estimate that a window must be below to be a new low. */
  private lowMs = Number.POSITIVE_INFINITY;
  private lowAtMs = 0;
  /** The lowest estimate of each of the last windows without a new low. */
  private bests: number[] = [];
  private windowStartMs: number | undefined;
  private windowBestMs = Number.POSITIVE_INFINITY;
  /** When the present stall began; undefined while the migration converges. */
  private sinceMs: number | undefined;
  /**
   * True when the last window was a new low. One such window does not end a stall, since a guest that was held up for
   * a moment dirties less.
   */
  private lowSeen = false;
  private endedStallsMs = 0;

  /**
   * Takes the downtime that is estimated now. Call only with an estimate that leaves nothing out, which is one at the
   * end of a section that drained QEMU's bitmap.
   */
  estimated(estimateMs: number, nowMs: number): void {
    this.windowStartMs ??= nowMs;
    this.windowBestMs = Math.min(this.windowBestMs, estimateMs);
    if (nowMs - this.windowStartMs < WINDOW_MS) return;
    this.closeWindow(this.windowBestMs, nowMs);
    this.beginWindow(nowMs);
  }

  /**
   * Notes that the link is down. Estimates of this window, and those that are made while the link is down, say nothing
   * about the guest and are dropped. The first window after the outage is a new low, so the progress is measured from
   * the backlog that the outage leaves. A stall ends, because the missing progress now has another reason.
   */
  interrupted(nowMs: number): void {
    this.endStall(nowMs);
    this.beginWindow(undefined);
    this.lowSeen = false;
    this.lowMs = Number.POSITIVE_INFINITY;
    this.bests = [];
  }

  /** How long the migration has been stalled, milliseconds; 0 while it converges. */
  stalledMs(nowMs: number): number {
    return this.sinceMs === undefined ? 0 : Math.max(0, nowMs - this.sinceMs);
  }

  /** How long all stalls together lasted, the present one included, milliseconds. */
  totalStalledMs(nowMs: number): number {
    return this.endedStallsMs + this.stalledMs(nowMs);
  }

  private beginWindow(atMs: number | undefined): void {
    this.windowStartMs = atMs;
    this.windowBestMs = Number.POSITIVE_INFINITY;
  }

  private endStall(nowMs: number): void {
    this.endedStallsMs += this.stalledMs(nowMs);
    this.sinceMs = undefined;
  }

  private closeWindow(bestMs: number, nowMs: number): void {
    const isNewLow = this.isNewLow(bestMs, nowMs);
    const isConfirmed = this.lowSeen || this.sinceMs === undefined;
    this.lowSeen = isNewLow;
    if (isNewLow && !isConfirmed) return;
    if (isNewLow) {
      this.endStall(nowMs);
      this.lowMs = bestMs;
      this.lowAtMs = nowMs;
      this.bests = [];
      return;
    }
    this.bests.push(bestMs);
    if (this.bests.length < STALLED_WINDOWS) return;
    // the stall began at the low: only now is it known that no lower estimate followed
    this.sinceMs ??= this.lowAtMs;
    this.lowMs = Math.min(...this.bests);
    this.lowAtMs = nowMs;
    this.bests.shift();
  }

  private isNewLow(bestMs: number, nowMs: number): boolean {
    if (!Number.isFinite(this.lowMs)) return true;
    if (this.sinceMs !== undefined) return bestMs <= (1 - MARGIN_TO_RESUME) * this.lowMs;
    return bestMs <= this.lowMs - Math.min(MARGIN * this.lowMs, PACE * (nowMs - this.lowAtMs));
  }
}
