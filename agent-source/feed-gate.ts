/**
 * Whether QEMU is read while the link has work. A page that is dirtied again while it waits in QEMU costs nothing; one that was captured
 * is copied, encoded and sent once more. So pages are captured just before the link needs them, and QEMU syncs its bitmap when what was
 * found before is about to run out (docs/decisions/0035).
 */

/** With less work than this the link might run out of it before QEMU's next pages are here, milliseconds. */
const LITTLE_MS = 50;
/** Between the two QEMU is neither stopped nor let on, so that it is not for every few pages. */
const ENOUGH_MS = 100;
/** Near the end what waits goes before each sync, milliseconds. */
const DRAINED_MS = 3;

export class FeedGate {
  /** The switch is near: what waits goes before the next sync. */
  drains = false;
  private readonly backlogMs: () => number;

  /** @param backlogMs what waits to be sent and is not held for its heat, milliseconds of the link and of the agents */
  constructor(backlogMs: () => number) {
    this.backlogMs = backlogMs;
  }

  get isShut(): boolean {
    return this.backlogMs() >= (this.drains ? DRAINED_MS : ENOUGH_MS);
  }

  /** To be asked while it is shut. */
  get opens(): boolean {
    return this.backlogMs() < (this.drains ? DRAINED_MS : LITTLE_MS);
  }
}
