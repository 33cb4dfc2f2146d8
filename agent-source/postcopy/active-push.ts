/**
 * Chooses which pages the source QEMU is asked for next in post-copy, before the guest needs them. QEMU sends requested
 * pages before those of its own sweep through memory, so the order of the pages is decided here. Few pages are asked
 * for at once, so a page for which the guest waits queues behind few others.
 *
 * Order: the pages around the last page for which the guest waited (Hines' bubbling: a guest that walks its memory
 * wants the next pages soon); the hottest pages; the rest in the order of memory. Pages for which the guest waits are
 * not asked for here: PostcopyCapture asks for them at once. Pure.
 */
import type { HeatMap } from "../../shared/page/heat-map.ts";
import type { PageSet } from "../../shared/page/page-set.ts";
import { pageIndex } from "../../shared/units.ts";

export interface ActivePushOptions {
  /** The pages that QEMU has still to send. The owner keeps this set up to date. */
  readonly awaited: PageSet;
  /** The awaited pages that QEMU was asked for. The owner takes pages out when they have come. */
  readonly asked: PageSet;
  readonly heat: HeatMap;
  /**
   * When the guest has waited for a page, at most this many of the pages that follow it in memory are asked for; 0 asks
   * for none.
   */
  readonly aheadPages: number;
  /** True if the hottest pages are asked for before the rest. */
  readonly byHeat: boolean;
}

/** How many of the pages that follow a page in memory are asked for when the guest has jumped to that page. */
const WINDOW_MIN = 32;
/**
 * How many of the pages that lie in memory before a page are asked for when the guest has jumped to that page. Data
 * that belongs together lies on both sides of such a page (docs/design/post-copy.md#the-order-of-pages).
 */
export const BEHIND_PAGES = 16;

export class ActivePush {
  private readonly parts: ActivePushOptions;
  /** The pages with heat that were awaited at the beginning, hottest first. */
  private hot: Int32Array = new Int32Array(0);
  /** The index in `hot` of the page that is next. */
  private hotAt = 0;
  /** The pages of [ahead, aheadEnd) lie around the last page for which the guest waited, and come next. */
  private ahead = 0;
  private aheadEnd = 0;
  /** How many of the pages that follow the last page for which the guest waited are asked for. */
  private window = 0;
  /** The page from which the rest is looked for, in the order of memory. */
  private linear = 0;
  /**
   * How many consecutive pages, from the one that first() returned, may go into one request: the rest of the window
   * after a fault, 1 for a hot page, all pages for the rest.
   */
  private runMax = 0;

  constructor(parts: ActivePushOptions) {
    this.parts = parts;
  }

  /** Puts the hot pages in their order. Called once, when all awaited pages are known. */
  begin(): void {
    if (this.parts.byHeat) this.hot = this.byHeat();
  }

  /**
   * Notes that the guest waits for this page. If the page lies in or just after the pages that were asked for ahead,
   * the guest walks its memory: twice as many pages are then asked for ahead, up to `aheadPages`, as for a file that is
   * read in order. After a jump only WINDOW_MIN pages after this page and BEHIND_PAGES before it are asked for.
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

  /**
   * Finds the page to ask for next, and sets `runMax` for this page.
   * @returns the page; -1 if every awaited page was asked for
   */
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

  /** @returns the first page of [from, end) that is awaited and was not asked for; `end` if there is none */
  private candidate(from: number, end: number): number {
    let page = this.parts.awaited.next(from);
    while (page < end && this.parts.asked.has(page)) page = this.parts.awaited.next(page + 1);
    return Math.min(page, end);
  }

  /** @returns how many consecutive pages from `first` on are awaited and were not asked for, at most `most` */
  private runFrom(first: number, most: number): number {
    let count = 1;
    while (count < most && this.isCandidate(first + count)) count++;
    return count;
  }

  /** @returns the awaited pages that have heat, hottest first; sorted by counting, since heat has 256 values */
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
