/** The time, handed to whoever needs it, so that tests turn the hands. */

export interface Clock {
  /**
   * Microseconds since the epoch, as the host's clock has it: comparable with QEMU's event timestamps. Does not run
   * backwards, unless somebody sets the host's clock back.
   */
  nowUs(): number;
  /** Milliseconds from a fixed start, with fractions: for durations, which no setting of the clock disturbs. */
  monotonicMs(): number;
}

/** Smaller steps back are jitter and are held; larger ones mean that the clock was set. */
const CLOCK_WAS_SET_US = 10_000;

/**
 * Microseconds out of a wall clock that tells milliseconds and a fine monotonic one: the monotonic one fills in, and is
 * kept within the millisecond that the wall clock shows, so it follows NTP for as long as the process lives.
 */
export class SystemClock implements Clock {
  private readonly wallMs: () => number;
  readonly monotonicMs: () => number;
  private offsetUs: number;
  private last = 0;

  constructor(wallMs: () => number = Date.now, monotonicMs: () => number = () => performance.now()) {
    this.wallMs = wallMs;
    this.monotonicMs = monotonicMs;
    this.offsetUs = wallMs() * 1000 - monotonicMs() * 1000;
  }

  nowUs(): number {
    // Both wall readings, since the process may have been put to sleep between them.
    const earliest = this.wallMs() * 1000;
    const fine = this.monotonicMs() * 1000;
    const latest = this.wallMs() * 1000 + 999;
    const guess = fine + this.offsetUs;
    const now = Math.max(earliest, Math.min(guess, latest));
    this.offsetUs += now - guess;
    const step = this.last - now;
    if (step > 0 && step < CLOCK_WAS_SET_US) return this.last;
    this.last = Math.floor(now);
    return this.last;
  }
}

export const systemClock: Clock = new SystemClock();
