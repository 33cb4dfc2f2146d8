/**
 * How often QEMU may sync its dirty bitmap while the guest is copied and not about to be stopped: whoever leaves QEMU's
 * socket unread holds its migration thread, and the guest runs on. Pure; times are passed in, milliseconds.
 *
 * QEMU syncs when nothing that it knows of is left to send, so a hold belongs behind a section that drained its bitmap;
 * behind any other it would only make the pass longer. A section without pages is 18 bytes, and some 300 of them wait
 * in the socket before QEMU does: one at a time, they would show the guest as it was long ago.
 */

/** Sections without pages that are read in one turn: about what a socket holds. */
const EMPTY_SECTIONS_A_TURN = 300;
/** A guest that dirties nothing is looked at so many times less often: each of its turns is hundreds of syncs. */
const IDLE_PERIODS = 10;

export class SyncPace {
  private readonly periodMs: number;
  private turnBeganMs: number;
  private emptySections = 0;

  /** @param turnsPerSecond most holds a second */
  constructor(turnsPerSecond: number, nowMs: number) {
    this.periodMs = 1000 / turnsPerSecond;
    this.turnBeganMs = nowMs;
  }

  /** A turn begins now: what was held before was held for something else. */
  begins(nowMs: number): void {
    this.turnBeganMs = nowMs;
  }

  /**
   * A section was read.
   * @param drained it left nothing dirty that QEMU knew of
   * @param near the switch is near: an idle guest is looked at as often as any other
   * @returns milliseconds to leave the next one unread; 0 to read on
   */
  holdMs(pages: number, drained: boolean, nowMs: number, near = false): number {
    if (!drained) return 0;
    if (pages === 0 && ++this.emptySections < EMPTY_SECTIONS_A_TURN) return 0;
    this.emptySections = 0;
    const period = pages === 0 && !near ? IDLE_PERIODS * this.periodMs : this.periodMs;
    const tookMs = nowMs - this.turnBeganMs;
    // at most half of the time is read, so that a guest which dirties much leaves a core to others; not for the last few turns
    const wait = Math.max(0, period - tookMs, near ? 0 : Math.min(tookMs, period));
    this.turnBeganMs = nowMs + wait;
    return wait;
  }
}
