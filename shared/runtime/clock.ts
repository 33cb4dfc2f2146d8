/** The clock that is handed to each component that needs the time, so that a test can hand over a clock of its own. */

export interface Clock {
  /**
   * Microseconds since the epoch by the host's clock, comparable with the timestamps of QEMU's events. The value does
   * not go backwards, unless somebody sets the host's clock back.
   */
  nowUs(): number;
  /**
   * Milliseconds since a fixed start, with fractions. Setting the host's clock does not change this value, so durations
   * are measured with it.
   */
  monotonicMs(): number;
}

/**
 * A step back of nowUs() that is smaller than this, microseconds, is jitter, and the last value is returned again. A
 * larger step means that somebody has set the clock.
 */
const CLOCK_WAS_SET_US = 10_000;

/**
 * Computes microseconds from a wall clock that counts milliseconds and a fine monotonic clock. The monotonic clock
 * supplies the fraction of the millisecond. The result is kept within the millisecond that the wall clock shows, so it
 * follows NTP for as long as the process lives.
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
    // the wall clock is read before and after the monotonic clock, since the process may sleep between two readings
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
