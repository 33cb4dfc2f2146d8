/**
 * The clock that is handed to each component that needs the time or waits for some time, so that a test can hand over
 * a clock of its own (test/support/fake-clock.ts) and need not wait. Node's timers and clocks are read here only.
 */
import { setTimeout as delay } from "node:timers/promises";

/** A call that is to come. After unref(), the process may end although the call has not come. */
export interface Timer {
  unref(): unknown;
}

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
  /** Calls once, when `ms` milliseconds are over. @returns what cancel() takes */
  after(ms: number, call: () => void): Timer;
  /** Calls every `ms` milliseconds until it is cancelled. @returns what cancel() takes */
  every(ms: number, call: () => void): Timer;
  /** Cancels a call that is to come. Does nothing for a timer whose call has come, and for undefined. */
  cancel(timer: Timer | undefined): void;
  /** Resolves when `ms` milliseconds are over. Rejects with an AbortError as soon as `signal` is aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
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

  after(ms: number, call: () => void): Timer {
    return setTimeout(call, ms);
  }

  every(ms: number, call: () => void): Timer {
    return setInterval(call, ms);
  }

  cancel(timer: Timer | undefined): void {
    // a timer of this clock is what after() or every() returned, and one function of Node's clears both kinds
    clearTimeout(timer as NodeJS.Timeout | undefined);
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    await delay(ms, undefined, signal && { signal });
  }
}

export const systemClock: Clock = new SystemClock();

/** Resolves when `ms` milliseconds are over. The process may end before that, unless something else keeps it alive. */
export const sleepUnref = (clock: Clock, ms: number): Promise<void> =>
  new Promise((resolve) => void clock.after(ms, resolve).unref());
