/**
 * Caps the rate at which encoded bytes are given to the link. A token bucket of 50 ms, so that a cap is kept over any
 * longer stretch; pure, the time is passed in.
 */
const BURST_SECONDS = 0.05;

export class Pacer {
  private readonly bytesPerSecond: number;
  private allowance: number;
  private at: number | undefined;

  /** @param bytesPerSecond 0: no cap */
  constructor(bytesPerSecond: number) {
    this.bytesPerSecond = bytesPerSecond;
    this.allowance = bytesPerSecond * BURST_SECONDS;
  }

  /** Milliseconds until something may be sent; 0: now. */
  waitMs(nowMs: number): number {
    if (this.bytesPerSecond === 0) return 0;
    const since = this.at === undefined ? 0 : nowMs - this.at;
    this.at = nowMs;
    this.allowance = Math.min(
      this.bytesPerSecond * BURST_SECONDS,
      this.allowance + (since * this.bytesPerSecond) / 1000,
    );
    return this.allowance >= 0 ? 0 : Math.ceil((-1000 * this.allowance) / this.bytesPerSecond);
  }

  /** Notes bytes that were sent; a frame may overdraw the bucket, later frames wait for it. */
  sent(bytes: number): void {
    if (this.bytesPerSecond > 0) this.allowance -= bytes;
  }
}
