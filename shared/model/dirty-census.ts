/**
 * Counts how many different pages a guest dirties within any time, from what an observation sees: page by page, which were
 * dirtied in each epoch (from one look at QEMU's bitmap to the next). Pure; nothing is made for a page.
 *
 * By intervals, as working sets are (P. J. Denning, "The working set model for program behavior", 1968): a window of w epochs
 * that is one epoch longer holds one page more for each that is dirtied in its last epoch and was not in the w before. So
 *
 *     U(w) = d(0) + … + d(w - 1)       d(j): pages of an epoch that were not dirtied in the j epochs before it, in the mean
 *
 * Epochs that are too early to tell count for no j: one observation gives U for every window up to its own length.
 */
import type { DirtySample } from "./dirty-curve.ts";

/** More are not worth their memory: a minute of epochs of 15 ms. */
const EPOCHS_MAX = 4096;

export class DirtyCensus {
  /** Epoch in which each page was dirtied last, from 1; 0: not since the census began. */
  private readonly last: Uint16Array;
  /** Dirtied pages by the epochs since they were dirtied before. */
  private readonly intervals = new Float64Array(EPOCHS_MAX + 1);
  private epoch = 1;
  private seen = 0;
  private beganAt = 0;
  private endedAt = 0;

  constructor(pageCount: number) {
    this.last = new Uint16Array(pageCount);
  }

  /** The first epoch begins. @param now seconds on any clock that goes on */
  begin(now: number): void {
    this.beganAt = now;
    this.endedAt = now;
  }

  /** A page was dirtied in this epoch; any number of times. */
  dirtied(page: number): void {
    const before = this.last[page]!;
    if (before === this.epoch) return;
    this.last[page] = this.epoch;
    if (before === 0) this.seen++;
    // one that was never seen was not dirtied in any of the epochs before this one
    this.intervals[before === 0 ? this.epoch : this.epoch - before]!++;
  }

  /** The epoch ends. @returns may there be another? */
  nextEpoch(now: number): boolean {
    this.endedAt = now;
    if (this.epoch === EPOCHS_MAX) return false;
    this.epoch++;
    return true;
  }

  /** Seconds since the last epoch ended. */
  since(now: number): number {
    return now - this.endedAt;
  }

  /** Different pages that were dirtied since the census began. */
  get pages(): number {
    return this.seen;
  }

  /** U at windows of 1, 2, 4 … epochs, and of all of them; nothing before an epoch has ended. */
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
        // no window holds more than all of them, but the sum can, where a guest dirties more and more
        found.push({ seconds: epochsLong * length, pages: Math.min(pages, this.seen) });
      }
    }
    return found;
  }
}
