/**
 * Whether QEMU is read while the link has work. A page that is dirtied again while it waits in QEMU costs nothing; one that was captured
 * is copied, encoded and sent once more. So pages are captured just before the link needs them, and QEMU syncs its bitmap when what was
 * found before is about to run out. On a link that takes seconds for a full arena it is the other way round: the first pass is read early, later
 * ones show which of the pages that wait are hot, and those are sent last and once (docs/decisions/0035).
 */

/** With less work than this the link might run out of it before QEMU's next pages are here, milliseconds. */
const LITTLE_MS = 50;
/** Between the two QEMU is neither stopped nor let on, so that it is not for every few pages. */
const ENOUGH_MS = 100;
/** A link that takes longer for a full arena gives the order by heat time to tell hot pages from others, milliseconds. */
const SLOW_MS = 1300;
/** Near the end what waits goes before each sync, milliseconds. */
const DRAINED_MS = 3;

export class FeedGate {
  /** The switch is near: what waits goes before the next sync. */
  drains = false;
  private readonly backlogMs: () => number;
  private readonly arenaMs: () => number;

  /**
   * @param backlogMs what waits to be sent and is not held for its heat, milliseconds of the link and of the agents
   * @param arenaMs a full arena of whole pages, milliseconds of the link
   */
  constructor(backlogMs: () => number, arenaMs: () => number) {
    this.backlogMs = backlogMs;
    this.arenaMs = arenaMs;
  }

  get isShut(): boolean {
    if (this.drains) return this.backlogMs() >= DRAINED_MS;
    return this.backlogMs() >= ENOUGH_MS && this.arenaMs() < SLOW_MS;
  }

  /** To be asked while it is shut. */
  get opens(): boolean {
    if (this.drains) return this.backlogMs() < DRAINED_MS;
    return this.backlogMs() < LITTLE_MS || this.arenaMs() >= SLOW_MS;
  }
}
