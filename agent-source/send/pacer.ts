/** Caps the rate at which encoded bytes are given to the link, with a token bucket. Pure: times are passed in. */

/**
 * The size of the bucket, as seconds of sending at the cap. In any length of time, at most as many bytes are sent as
 * the cap allows in this time, plus a full bucket and one frame.
 */
const BURST_SECONDS = 0.05;

export class Pacer {
  private readonly bytesPerSecond: number;
  /** How many bytes may be sent now; negative after a frame that has overdrawn the bucket. */
  private allowance: number;
  /** When the allowance was last updated, milliseconds. */
  private at: number | undefined;

  /** @param bytesPerSecond the cap; 0 for none */
  constructor(bytesPerSecond: number) {
    this.bytesPerSecond = bytesPerSecond;
    this.allowance = bytesPerSecond * BURST_SECONDS;
  }

  /** @returns for how long nothing may be sent, milliseconds; 0 if a frame may be sent now */
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

  /** Notes bytes that were sent. A frame may overdraw the bucket; the frames after it then wait. */
  sent(bytes: number): void {
    if (this.bytesPerSecond > 0) this.allowance -= bytes;
  }
}
