/**
 * Measures how long the guest waits for its pages: from a request of its QEMU until the page is written to QEMU. The
 * memory is bounded: times are kept as a histogram with eight steps for each doubling, so a percentile is right to 9 %.
 */
import type { ServiceTimes as Summary } from "../../shared/protocol/stream-messages.ts";

/** Cells of the histogram for each doubling of the time. */
const STEPS = 8;
/** How many cells the histogram has: it covers 1 to 2^32 microseconds. */
const CELLS = 32 * STEPS;
/**
 * How many requested pages are followed at most. A QEMU that works as it should requests one page for each virtual CPU,
 * and a few for devices. The times of further pages are not measured.
 */
const WAITING_MAX = 65_536;

/** Measures the times of one guest. */
export class ServiceTimes {
  /** The pages that are waited for, and when each was requested, microseconds. */
  private readonly waiting = new Map<number, number>();
  private readonly cells = new Uint32Array(CELLS);
  private count = 0;
  private maxUs = 0;

  /** True while a page is waited for. */
  get isWaiting(): boolean {
    return this.waiting.size > 0;
  }

  /** The pages that are waited for, in the order of their requests. */
  get waitingPages(): Iterable<number> {
    return this.waiting.keys();
  }

  /** Notes that QEMU has asked for a page. */
  requested(page: number, nowUs: number): void {
    if (this.waiting.size < WAITING_MAX && !this.waiting.has(page)) this.waiting.set(page, nowUs);
  }

  /** Notes that a page is written to QEMU. */
  served(page: number, nowUs: number): void {
    const sinceUs = this.waiting.get(page);
    if (sinceUs === undefined) return;
    this.waiting.delete(page);
    const us = Math.max(1, nowUs - sinceUs);
    this.cells[Math.min(CELLS - 1, Math.floor(STEPS * Math.log2(us)))]!++;
    this.count++;
    this.maxUs = Math.max(this.maxUs, us);
  }

  summary(): Summary {
    return { requests: this.count, medianMs: this.at(0.5), p99Ms: this.at(0.99), maxMs: this.maxUs / 1000 };
  }

  /** Gives a percentile, milliseconds. @param part from 0 to 1 */
  private at(part: number): number {
    let left = part * this.count;
    for (let cell = 0; cell < CELLS; cell++) {
      left -= this.cells[cell]!;
      if (this.count > 0 && left <= 0) return Math.min(this.maxUs, 2 ** ((cell + 0.5) / STEPS)) / 1000;
    }
    return 0;
  }
}
