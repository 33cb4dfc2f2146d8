/** How often something may happen: so many at once, and then so many a second. */
export class Rate {
  private readonly perSecond: number;
  private readonly burst: number;
  private left: number;
  private sinceMs = performance.now();

  constructor(perSecond: number, burst: number) {
    this.perSecond = perSecond;
    this.burst = burst;
    this.left = burst;
  }

  /** Counts one. @returns false when it is too soon, and nothing is counted */
  take(): boolean {
    this.refill();
    if (this.left < 1) return false;
    this.left--;
    return true;
  }

  /** Milliseconds until one more may happen; 0 when it may now. */
  waitMs(): number {
    this.refill();
    return Math.max(0, Math.ceil(((1 - this.left) / this.perSecond) * 1000));
  }

  private refill(): void {
    const nowMs = performance.now();
    this.left = Math.min(this.burst, this.left + ((nowMs - this.sinceMs) / 1000) * this.perSecond);
    this.sinceMs = nowMs;
  }
}
