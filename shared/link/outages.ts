/** When there was no connection, and for how long: as those who wait for it feel it. Pure; times are passed in, milliseconds. */

export interface Interruptions {
  readonly count: number;
  /** All together, milliseconds. */
  readonly downMs: number;
}

export class Outages {
  private readonly noticedWithinMs: number;
  private heardMs = 0;
  private sinceMs: number | undefined;
  private count = 0;
  private downMs = 0;

  /**
   * @param noticedWithinMs a connection that was cut looks whole until keep-alive has found it, so long at most. A cut has begun
   *   when the peer was last heard, but no longer ago than this: a peer that was made to wait is silent too
   */
  constructor(noticedWithinMs: number) {
    this.noticedWithinMs = noticedWithinMs;
  }

  /** Something came from the peer. */
  heard(nowMs: number): void {
    this.heardMs = nowMs;
  }

  /** It was noticed that there is no connection any more. */
  begin(nowMs: number): void {
    this.sinceMs = Math.max(this.heardMs, nowMs - this.noticedWithinMs);
    this.count++;
  }

  /** There is a connection. @returns was there none before? */
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

  /** 0 while there is a connection. */
  downForMs(nowMs: number): number {
    return this.sinceMs === undefined ? 0 : nowMs - this.sinceMs;
  }

  interruptions(nowMs: number): Interruptions {
    return { count: this.count, downMs: this.downMs + this.downForMs(nowMs) };
  }
}
