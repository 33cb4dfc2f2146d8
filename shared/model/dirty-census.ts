/**
 * Counts how many different pages a guest dirties within a time of any length. An observation of the guest tells the
 * census which pages were dirtied in each epoch; an epoch lasts from one look at QEMU's bitmap to the next. Everything
 * is pure, and no object is made for a page.
 *
 * The census counts intervals, as is done for working sets (P. J. Denning, "The working set model for program
 * behavior", 1968). When a window of w epochs is made one epoch longer, it holds one page more for each page that is
 * dirtied in the new epoch and was not dirtied in the w epochs before. So
 *
 *     U(w) = d(0) + … + d(w - 1)
 *
 * where d(j) is how many pages of an epoch, in the mean, were not dirtied in the j epochs before it. An epoch counts
 * for d(j) only if the census saw j epochs before it. So one observation gives U for every window up to the length of
 * the observation.
 */
import type { DirtySample } from "./dirty-curve.ts";

/** The most epochs of a census, a minute of epochs of 15 ms. More are not worth their memory. */
const EPOCHS_MAX = 4096;

export class DirtyCensus {
  /**
   * The epoch, from 1 on, in which each page was dirtied last; 0 for a page that was not dirtied since the census
   * began.
   */
  private readonly last: Uint16Array;
  /**
   * At index i: how often a page was dirtied i epochs after it had been dirtied before. When a page is dirtied for the
   * first time, i is the number of the epoch.
   */
  private readonly intervals = new Float64Array(EPOCHS_MAX + 1);
  private epoch = 1;
  private seen = 0;
  private beganAt = 0;
  private endedAt = 0;

  constructor(pageCount: number) {
    this.last = new Uint16Array(pageCount);
  }

  /** Begins the first epoch. @param now seconds on any clock that is never set back */
  begin(now: number): void {
    this.beganAt = now;
    this.endedAt = now;
  }

  /** Notes that a page was dirtied in this epoch. It may be called any number of times for a page. */
  dirtied(page: number): void {
    const before = this.last[page]!;
    if (before === this.epoch) return;
    this.last[page] = this.epoch;
    if (before === 0) this.seen++;
    // a page that was never seen was not dirtied in any of the epochs before this one
    this.intervals[before === 0 ? this.epoch : this.epoch - before]!++;
  }

  /**
   * Ends the epoch and begins the next.
   * @returns false when the census has EPOCHS_MAX epochs, so that no other epoch begins
   */
  nextEpoch(now: number): boolean {
    if (this.epoch === EPOCHS_MAX) return false;
    this.endedAt = now;
    this.epoch++;
    return true;
  }

  /** Tells how many seconds have passed since the last epoch ended. */
  since(now: number): number {
    return now - this.endedAt;
  }

  /** How many different pages were dirtied since the census began. */
  get pages(): number {
    return this.seen;
  }

  /**
   * Returns U for windows of 1, 2, 4, 8 and so on epochs, and for the window of all epochs. Empty before an epoch has
   * ended.
   */
  samples(): DirtySample[] {
    const epochs = this.epoch - 1;
    if (epochs === 0) return [];
    const length = (this.endedAt - this.beganAt) / epochs;
    const found: DirtySample[] = [];
    let longer = this.intervals.subarray(1, epochs + 1).reduce((sum, pages) => sum + pages, 0);
    let pages = 0;
    for (let before = 0; before < epochs; before++) {
      pages += longer / (epochs - before);
      longer -= this.intervals[before + 1]!;
      const epochsLong = before + 1;
      if (epochsLong === epochs || (epochsLong & before) === 0) {
        // no window holds more pages than the census saw, but the sum can be larger when a guest dirties more and more
        found.push({ seconds: epochsLong * length, pages: Math.min(pages, this.seen) });
      }
    }
    return found;
  }
}
