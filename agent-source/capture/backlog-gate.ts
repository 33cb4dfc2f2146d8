/**
 * Whether QEMU is read while the link has work. A page that is dirtied again while it waits in QEMU costs nothing; one that was captured
 * is copied, encoded and sent once more. So pages are captured just before the link needs them, and QEMU syncs its bitmap when what was
 * found before is about to run out. On a link that takes seconds for a full arena it is the other way round: the first pass is read
 * early, later ones show which of the pages that wait are hot, and those are sent last and once (docs/decisions/0035).
 */

/** Milliseconds. */
export interface LinkWork {
  /** What waits to be sent and is not held for its heat: of the link and of the agents. */
  readonly backlogMs: number;
  /** A full arena of whole pages: of the link. */
  readonly arenaMs: number;
}

/** With less work than this the link might run out of it before QEMU's next pages are here, milliseconds. */
const LITTLE_MS = 50;
/** Between the two QEMU is neither stopped nor let on, so that it is not for every few pages. */
const ENOUGH_MS = 100;
/** A link that takes longer for a full arena gives the order by heat time to tell hot pages from others, milliseconds. */
const SLOW_MS = 1300;
/** Near the end what waits goes before each sync, milliseconds. */
const DRAINED_MS = 3;

export class BacklogGate {
  /** The switch is near: what waits goes before the next sync. */
  drains = false;
  private readonly work: LinkWork;

  constructor(work: LinkWork) {
    this.work = work;
  }

  get isShut(): boolean {
    if (this.drains) return this.work.backlogMs >= DRAINED_MS;
    return this.work.backlogMs >= ENOUGH_MS && this.work.arenaMs < SLOW_MS;
  }

  /** To be asked while it is shut. */
  get opens(): boolean {
    if (this.drains) return this.work.backlogMs < DRAINED_MS;
    return this.work.backlogMs < LITTLE_MS || this.work.arenaMs >= SLOW_MS;
  }
}
