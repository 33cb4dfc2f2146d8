/**
 * How long the guest waits for its pages: from a request of its QEMU until the page was written to it. Bounded: a
 * histogram with eight steps to the doubling, so a percentile is right to 9 %.
 */
import type { ServiceTimes as Summary } from "../../shared/protocol/messages.ts";

const STEPS = 8;
/** Microseconds from 1 to 2^32. */
const CELLS = 32 * STEPS;
/** Requests that wait: one for each virtual CPU and a few of devices, unless QEMU is out of its mind. */
const WAITING_MAX = 65_536;

export class ServiceTimes {
  private readonly waiting = new Map<number, number>();
  private readonly cells = new Uint32Array(CELLS);
  private count = 0;
  private maxUs = 0;

  /** Is there a page that is waited for? */
  get isWaiting(): boolean {
    return this.waiting.size > 0;
  }

  /** The pages that are waited for, oldest first. */
  get waitingPages(): Iterable<number> {
    return this.waiting.keys();
  }

  requested(page: number, nowUs: number): void {
    if (this.waiting.size < WAITING_MAX && !this.waiting.has(page)) this.waiting.set(page, nowUs);
  }

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

  private at(part: number): number {
    let left = part * this.count;
    for (let cell = 0; cell < CELLS; cell++) {
      left -= this.cells[cell]!;
      if (this.count > 0 && left <= 0) return Math.min(this.maxUs, 2 ** ((cell + 0.5) / STEPS)) / 1000;
    }
    return 0;
  }
}
