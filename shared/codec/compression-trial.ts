/**
 * Whether pages go faster without compression: tried, where the hosts' processors are what is narrow and the link may carry the pages
 * as they are. What a link carries cannot be known while it is not full, nor what the destination spends on reading frames: so
 * for a moment it is done, and what then goes over is compared. Pure: times are passed in.
 */

/** Pages that a rate is taken of, bytes before compression: several times what is on its way. */
const WINDOW_BYTES = 6 << 20;
/** A longer time between two frames is a wait for QEMU's pages, or a slow link: neither says anything of the hosts. */
const GAP_MAX_US = 20_000;
/** Part of the newest window in the rate: one by itself is off by a third where processors are shared. */
const SMOOTHING = 0.3;
/** Without must be so much faster: compression also leaves the link to others. */
const BETTER = 1.2;
/** Windows until it is tried for the first time: V8 compiles in those before. */
const FIRST_AFTER = 4;
/** Each time it was worse, it is tried again so many times as late. */
const LATER = 8;
/** Windows of a trial; of the first what is seen is what was on its way before. */
const TRIAL_WINDOWS = 3;

export class CompressionTrial {
  /** Pages go without compression, to try it or because they go faster. */
  without = false;
  /** Bytes per second before compression, lately, with it; 0: not known. */
  private withRate = 0;
  private withoutRate = 0;
  private windowBytes = 0;
  private windowUs = 0;
  private lastUs = 0;
  /** Windows with what is done now. */
  private windows = 0;
  /** Windows until the next trial. */
  private wait = FIRST_AFTER;

  /**
   * A frame of pages was made.
   * @param mayCarry the most that the link carried lately, bytes per second
   * @param isScarce has the host no processor left, and is it not the link that is full?
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
