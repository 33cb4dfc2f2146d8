/** Limits how often something may happen: `burst` times at once, and then `perSecond` times a second. */
import { type Clock, systemClock } from "../../runtime/clock.ts";

export class Rate {
  private readonly perSecond: number;
  private readonly burst: number;
  private left: number;
  private readonly clock: Clock;
  private sinceMs: number;

  constructor(perSecond: number, burst: number, clock: Clock = systemClock) {
    this.perSecond = perSecond;
    this.burst = burst;
    this.left = burst;
    this.clock = clock;
    this.sinceMs = clock.monotonicMs();
  }

  /** Counts one event. @returns false when it is too soon; then nothing is counted */
  take(): boolean {
    this.refill();
    if (this.left < 1) return false;
    this.left--;
    return true;
  }

  /** How long it takes until one more event may happen, milliseconds; 0 when it may happen now. */
  waitMs(): number {
    this.refill();
    return Math.max(0, Math.ceil(((1 - this.left) / this.perSecond) * 1000));
  }

  private refill(): void {
    const nowMs = this.clock.monotonicMs();
    this.left = Math.min(this.burst, this.left + ((nowMs - this.sinceMs) / 1000) * this.perSecond);
    this.sinceMs = nowMs;
  }
}
