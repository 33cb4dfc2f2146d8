/**
 * Decides whether QEMU's stream is left unread because the link still has enough to do.
 *
 * A page that the guest dirties again while the page waits in QEMU costs nothing. A page that is dirtied again after
 * its capture is copied, encoded and sent once more. So pages are captured just before the link needs them, and QEMU
 * syncs its bitmap when the pages that the last sync found are about to run out.
 *
 * On a slow link, which takes seconds for a full arena, the stream is read ahead instead: the first pass is read early,
 * and later passes show which of the pending pages are hot. The hot pages are then sent last and once
 * (docs/design/feed-pacing.md#the-backlog).
 */

/** How much work the link has, milliseconds. */
export interface LinkWork {
  /** How long the link and the agents take for the pages that wait to be sent and are not held for their heat. */
  readonly backlogMs: number;
  /** How long the link takes for a full arena of whole pages. */
  readonly arenaMs: number;
}

/**
 * The gate opens below this backlog, milliseconds. With less, the link might run idle before QEMU's next pages come.
 */
const LITTLE_MS = 50;
/**
 * The gate shuts from this backlog on, milliseconds. It is twice LITTLE_MS, so that the gate does not shut and open for
 * every few pages.
 */
const ENOUGH_MS = 100;
/**
 * The stream is read ahead on a link that takes at least this long for a full arena, milliseconds. The order by heat
 * then has time to tell hot pages from others.
 */
const SLOW_MS = 1300;
/** Near the switchover the gate is shut from this backlog on, milliseconds. */
const DRAINED_MS = 3;

export class BacklogGate {
  /** True near the switchover: the pages that wait are sent before the next sync. */
  drains = false;
  private readonly work: LinkWork;

  constructor(work: LinkWork) {
    this.work = work;
  }

  /**
   * True when reading should stop. Asked in the first pass before the bytes of a read are parsed, and later after each
   * section that drained the bitmap.
   */
  get isShut(): boolean {
    if (this.drains) return this.work.backlogMs >= DRAINED_MS;
    return this.work.backlogMs >= ENOUGH_MS && this.work.arenaMs < SLOW_MS;
  }

  /** True when reading should go on. Asked only after reading was stopped by this gate. */
  get opens(): boolean {
    if (this.drains) return this.work.backlogMs < DRAINED_MS;
    return this.work.backlogMs < LITTLE_MS || this.work.arenaMs >= SLOW_MS;
  }
}
