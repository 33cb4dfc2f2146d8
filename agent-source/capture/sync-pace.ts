/**
 * Bounds how often QEMU syncs its dirty bitmap while the guest is copied and is not about to be stopped. After each
 * sync the agent leaves QEMU's socket unread for a while; QEMU's migration thread then blocks, and the guest runs on.
 * Pure: times are passed in, milliseconds.
 *
 * A turn is a time in which the stream is read, together with the hold that follows. It lasts at least one period,
 * which is 1 s divided by `transfer.syncRate`. QEMU syncs when no page is left that it knows to be dirty, so the hold
 * comes after a section that drained the bitmap. A hold after any other section would only make the pass longer.
 *
 * A section without pages has 18 bytes, and some 300 such sections fit into the socket before QEMU blocks. If only one
 * of them were read in each turn, they would show the guest as it was 14 to 28 s before
 * (docs/design/feed-pacing.md#sections-without-pages).
 */

/** How many sections without pages are read in one turn: about as many as a socket holds. */
const EMPTY_SECTIONS_A_TURN = 300;
/**
 * How many periods a turn lasts while the guest dirties nothing. Such a turn costs QEMU hundreds of syncs, so these
 * turns come less often.
 */
const IDLE_PERIODS = 10;

export class SyncPace {
  private readonly periodMs: number;
  private turnBeganMs: number;
  /** How many sections without pages were read in this turn. */
  private emptySections = 0;

  /** @param turnsPerSecond the most turns a second (`transfer.syncRate`) */
  constructor(turnsPerSecond: number, nowMs: number) {
    this.periodMs = 1000 / turnsPerSecond;
    this.turnBeganMs = nowMs;
  }

  /** Begins a turn now. Called when the stream is read on after a hold for the backlog (read-hold.ts). */
  begins(nowMs: number): void {
    this.turnBeganMs = nowMs;
  }

  /**
   * Takes a section that was read.
   * @param pages how many pages the section had
   * @param drained true if the section left no page dirty that QEMU knew of
   * @param near true if the switchover is near: the turns of an idle guest then last as long as those of any other
   *   guest
   * @returns for how long the next section is to be left unread, milliseconds; 0 to read on
   */
  holdMs(pages: number, drained: boolean, nowMs: number, near = false): number {
    if (!drained) return 0;
    if (pages === 0 && ++this.emptySections < EMPTY_SECTIONS_A_TURN) return 0;
    this.emptySections = 0;
    const period = pages === 0 && !near ? IDLE_PERIODS * this.periodMs : this.periodMs;
    const tookMs = nowMs - this.turnBeganMs;
    // the hold lasts as long as the reading did, up to a period, so that a guest that dirties much leaves a core to
    // others half of the time; in the last few turns before the switchover only the rest of the period is held
    const wait = Math.max(0, period - tookMs, near ? 0 : Math.min(tookMs, period));
    this.turnBeganMs = nowMs + wait;
    return wait;
  }
}
