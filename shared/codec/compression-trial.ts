/**
 * Finds out by trial whether pages go faster without compression. A trial is made where processors are the bottleneck
 * and the link may carry the pages as they are. How much a link carries is unknown as long as it is not full, and so is
 * the time that the destination spends on reading frames. So for a moment pages go without compression, and the two
 * rates are compared (docs/design/compression.md#the-trial).
 *
 * Everything here is pure: times are passed in.
 */

/**
 * The length of a window, over which one rate is measured: bytes before compression, several times the bytes in flight.
 */
const WINDOW_BYTES = 6 << 20;
/**
 * The longest time between two frames that counts for a rate, microseconds. A longer time is a wait for QEMU's pages or
 * for a slow link, and says nothing about the hosts.
 */
const GAP_MAX_US = 20_000;
/**
 * Weight of the newest window in a rate, 0 to 1. One window by itself is off by a third where processors are shared.
 */
const SMOOTHING = 0.3;
/**
 * Pages stay without compression only when they are sent at least this many times as fast: with compression they also
 * leave more of the link to others.
 */
const BETTER = 1.2;
/** How many windows pass before the first trial, because V8 still compiles in these. */
const FIRST_AFTER = 4;
/**
 * Each time that a trial ends and pages are compressed again, the wait for the next trial becomes this many times as
 * long.
 */
const LATER = 8;
/** How many windows a trial lasts. The first does not count: it shows what was in flight before the change. */
const TRIAL_WINDOWS = 3;

export class CompressionTrial {
  /** True while pages go without compression, for a trial or because that has proved faster. */
  without = false;
  /**
   * The rate at which pages were sent lately with compression, in raw bytes per second (before compression); 0 while it
   * is not known.
   */
  private withRate = 0;
  /** The rate at which pages were sent lately without compression, bytes per second; 0 while it is not known. */
  private withoutRate = 0;
  private windowBytes = 0;
  private windowUs = 0;
  private lastUs = 0;
  /** How many windows have passed since `without` changed. */
  private windows = 0;
  /** How many windows with compression pass before the next trial. */
  private wait = FIRST_AFTER;

  /**
   * Notes that a frame of pages was made, and decides at the end of a window whether `without` changes.
   * @param rawBytes the frame's bytes before compression
   * @param mayCarry the most that the link carried lately, bytes per second
   * @param isScarce tells whether the host has no processor left, and the link is not at its peak
   */
  made(rawBytes: number, nowUs: number, mayCarry: number, isScarce: () => boolean): void {
    const gapUs = nowUs - this.lastUs;
    this.lastUs = nowUs;
    if (gapUs > GAP_MAX_US) return;
    this.windowUs += gapUs;
    this.windowBytes += rawBytes;
    if (this.windowBytes < WINDOW_BYTES) return;
    const rate = (1e6 * this.windowBytes) / Math.max(1, this.windowUs);
    this.windowBytes = 0;
    this.windowUs = 0;
    this.windows++;
    if (this.windows === 1) return;
    if (this.without) this.seenWithout(rate, isScarce);
    else this.seenWith(rate, mayCarry, isScarce);
  }

  private seenWith(rate: number, mayCarry: number, isScarce: () => boolean): void {
    this.withRate = smoothed(this.withRate, rate);
    if (this.windows >= this.wait && mayCarry >= this.withRate && isScarce()) this.change(true);
  }

  private seenWithout(rate: number, isScarce: () => boolean): void {
    this.withoutRate = smoothed(this.withoutRate, rate);
    if (this.windows < TRIAL_WINDOWS || (this.withoutRate >= BETTER * this.withRate && isScarce())) return;
    this.wait *= LATER;
    this.change(false);
  }

  private change(without: boolean): void {
    this.without = without;
    this.windows = 0;
    this.withoutRate = 0;
  }
}

const smoothed = (before: number, rate: number): number =>
  before === 0 ? rate : (1 - SMOOTHING) * before + SMOOTHING * rate;
