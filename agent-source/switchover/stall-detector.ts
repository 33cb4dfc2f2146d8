/**
 * Does the migration get anywhere? Pure; times are passed in, milliseconds.
 *
 * What would have to be sent if the guest stopped now is estimated all the time, as the downtime that it would cost. The
 * lowest estimate of each window counts: it is the local minimum, and a window that is a whole pass of a sawtooth is
 * judged by its best moment. A window is a *new low* when its best is clearly below what was the low before. Several
 * windows without one: the migration is stalled. It goes on; a later new low ends the stall, and a fitting one the
 * migration.
 *
 * A low is forgotten with the stall: a guest that was quiet once is afterwards measured by how it is now.
 */

/** Shortest window; it ends with an estimate, so where a pass is longer it is as long as that. */
const WINDOW_MS = 1000;
/** Windows without a new low until it is a stall. */
const STALLED_WINDOWS = 4;
/** A new low is smaller by this part; to end a stall, by the larger one, so that noise does not make it come and go. */
const MARGIN = 0.05;
const MARGIN_TO_RESUME = 0.15;
/**
 * Or by this part of the time that it took. The estimate is mostly time of the link, so a link that works off a backlog
 * lowers it by up to a millisecond a millisecond: a long backlog gets shorter by few percent a window, and does progress.
 */
const PACE = 0.1;

export class StallDetector {
  private lowMs = Number.POSITIVE_INFINITY;
  private lowAtMs = 0;
  /** Best of each of the last windows without a new low. */
  private bests: number[] = [];
  private windowStartMs: number | undefined;
  private windowBestMs = Number.POSITIVE_INFINITY;
  private sinceMs: number | undefined;
  /** The window before was a new low. One alone does not end a stall: a guest that was held up for a moment dirties less. */
  private lowSeen = false;
  private endedStallsMs = 0;

  /** What the guest would stand still, as it is estimated now; only where the estimate is a whole one. */
  estimated(estimateMs: number, nowMs: number): void {
    this.windowStartMs ??= nowMs;
    this.windowBestMs = Math.min(this.windowBestMs, estimateMs);
    if (nowMs - this.windowStartMs < WINDOW_MS) return;
    this.closeWindow(this.windowBestMs, nowMs);
    this.beginWindow(nowMs);
  }

  /**
   * The link is down: what is estimated meanwhile, and before in this window, says nothing of the guest. What the cut has
   * left to be sent is measured anew, and a stall has ended: that it does not progress now has another reason.
   */
  interrupted(nowMs: number): void {
    this.endStall(nowMs);
    this.beginWindow(undefined);
    this.lowSeen = false;
    this.lowMs = Number.POSITIVE_INFINITY;
    this.bests = [];
  }

  /** How long it has been stalled; 0 while it progresses. */
  stalledMs(nowMs: number): number {
    return this.sinceMs === undefined ? 0 : Math.max(0, nowMs - this.sinceMs);
  }

  /** All stalls together, the one that lasts included. */
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
    // it has been so since the low, which only now is known to have been one
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
