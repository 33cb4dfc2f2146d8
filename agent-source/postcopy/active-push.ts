/**
 * Which pages are asked of the source's QEMU next, in post-copy. What it is asked for it sends ahead of its own sweep, so
 * the order is decided here; little is ever on its way, and what the guest waits for is behind nothing but that.
 *
 * Order: what the guest waits for; the pages around the last one of those (Hines' bubbling: a guest that walks its memory
 * wants the next ones); the hottest; the rest as it lies in memory. Pure.
 */
import type { HeatMap } from "../../shared/page/heat-map.ts";
import type { PageSet } from "../../shared/page/page-set.ts";
import { pageIndex } from "../../shared/units.ts";

export interface ActivePushOptions {
  /** Pages that QEMU has still to send; kept by the owner. */
  readonly awaited: PageSet;
  /** Of these, the ones that it was asked for. */
  readonly asked: PageSet;
  readonly heat: HeatMap;
  /** Asked for behind one that was waited for, where the guest walks its memory: at most. 0: none. */
  readonly aheadPages: number;
  /** Hottest first. */
  readonly byHeat: boolean;
}

const WINDOW_MIN = 32;
/** Ahead of a page that the guest has jumped to: what belongs together lies on both sides of it. */
export const BEHIND_PAGES = 16;

export class ActivePush {
  private readonly parts: ActivePushOptions;
  /** Pages with heat that were awaited at the beginning, hottest first. */
  private hot: Int32Array = new Int32Array(0);
  private hotAt = 0;
  private ahead = 0;
  private aheadEnd = 0;
  private window = 0;
  private linear = 0;
  /** Pages that the order of first() holds for, from what it returned on. */
  private runMax = 0;

  constructor(parts: ActivePushOptions) {
    this.parts = parts;
  }

  /** All awaited pages are known. */
  begin(): void {
    if (this.parts.byHeat) this.hot = this.byHeat();
  }

  /**
   * The guest waits for this page. Where it comes on to what was asked for ahead of it, twice as much is, as with a file that
   * is read in order; a jump begins with little.
   */
  fault(page: number): void {
    const { aheadPages, awaited } = this.parts;
    const goesOn = page >= this.aheadEnd - this.window && page <= this.aheadEnd + WINDOW_MIN;
    this.window = Math.min(aheadPages, goesOn ? Math.max(WINDOW_MIN, 2 * this.window) : WINDOW_MIN);
    this.ahead = goesOn ? page + 1 : Math.max(0, page - BEHIND_PAGES);
    this.aheadEnd = Math.min(awaited.pageCount, page + 1 + this.window);
  }

  /** Calls `ask` for ranges of together at most `pages` pages, and notes them as asked for. */
  next(pages: number, ask: (firstPage: number, pageCount: number) => void): void {
    let left = pages;
    while (left > 0) {
      const first = this.first();
      if (first < 0) return;
      const count = this.runFrom(first, Math.min(left, this.runMax));
      this.parts.asked.addRange(first, count);
      ask(first, count);
      left -= count;
    }
  }

  private first(): number {
    this.ahead = this.candidate(this.ahead, this.aheadEnd);
    this.runMax = this.aheadEnd - this.ahead;
    if (this.ahead < this.aheadEnd) return this.ahead;
    this.runMax = 1;
    while (this.hotAt < this.hot.length) {
      const page = this.hot[this.hotAt++]!;
      if (this.isCandidate(page)) return page;
    }
    const { pageCount } = this.parts.awaited;
    this.runMax = pageCount;
    this.linear = this.candidate(this.linear, pageCount);
    return this.linear < pageCount ? this.linear : -1;
  }

  private isCandidate(page: number): boolean {
    return this.parts.awaited.has(page) && !this.parts.asked.has(page);
  }

  /** The first page of [from, end) that is awaited and not asked for; `end` when there is none. */
  private candidate(from: number, end: number): number {
    let page = this.parts.awaited.next(from);
    while (page < end && this.parts.asked.has(page)) page = this.parts.awaited.next(page + 1);
    return Math.min(page, end);
  }

  private runFrom(first: number, most: number): number {
    let count = 1;
    while (count < most && this.isCandidate(first + count)) count++;
    return count;
  }

  /** By counting: heat has 256 values. */
  private byHeat(): Int32Array {
    const { awaited, heat } = this.parts;
    const starts = new Int32Array(257);
    for (let page = awaited.next(0); page < awaited.pageCount; page = awaited.next(page + 1)) {
      const warmth = heat.of(pageIndex(page));
      if (warmth > 0) starts[256 - warmth]!++;
    }
    let sum = 0;
    for (let i = 0; i < 257; i++) {
      const count = starts[i]!;
      starts[i] = sum;
      sum += count;
    }
    const order = new Int32Array(sum);
    for (let page = awaited.next(0); page < awaited.pageCount; page = awaited.next(page + 1)) {
      const warmth = heat.of(pageIndex(page));
      if (warmth > 0) order[starts[256 - warmth]!++] = page;
    }
    return order;
  }
}
