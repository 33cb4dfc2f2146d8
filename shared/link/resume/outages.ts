/**
 * Counts the outages of a connection, and how long they last. An outage begins when the peer was last heard, but no
 * earlier than a fixed time before the cut was noticed. The class has no clock: the caller passes in the times,
 * milliseconds.
 */

export interface Interruptions {
  /** How many outages there were. */
  readonly count: number;
  /** How long there was no connection in all outages together, milliseconds. */
  readonly downMs: number;
}

export class Outages {
  private readonly noticedWithinMs: number;
  private heardMs = 0;
  private sinceMs: number | undefined;
  private count = 0;
  private downMs = 0;

  /**
   * @param noticedWithinMs how late a cut may be noticed, milliseconds: a cut connection looks whole until keep-alive
   *   finds the cut. A cut counts from when the peer was last heard, but from no earlier than this long before the cut
   *   was noticed, since a peer may also have been silent because it was made to wait
   */
  constructor(noticedWithinMs: number) {
    this.noticedWithinMs = noticedWithinMs;
  }

  /** Notes that something came from the peer. */
  heard(nowMs: number): void {
    this.heardMs = nowMs;
  }

  /** Notes that the connection was found to be lost. */
  begin(nowMs: number): void {
    this.sinceMs = Math.max(this.heardMs, nowMs - this.noticedWithinMs);
    this.count++;
  }

  /** Notes that there is a connection. @returns true if there was an outage, which ends now */
  end(nowMs: number): boolean {
    const again = this.isDown;
    this.downMs += this.downForMs(nowMs);
    this.sinceMs = undefined;
    this.heard(nowMs);
    return again;
  }

  get isDown(): boolean {
    return this.sinceMs !== undefined;
  }

  /** How long the present outage has lasted, milliseconds; 0 while there is a connection. */
  downForMs(nowMs: number): number {
    return this.sinceMs === undefined ? 0 : nowMs - this.sinceMs;
  }

  interruptions(nowMs: number): Interruptions {
    return { count: this.count, downMs: this.downMs + this.downForMs(nowMs) };
  }
}
