/**
 * How often each page is dirtied, fading with time (the weight of Svärd et al., CloudCom 2011).
 *
 * The first arrival of a page says nothing, because every page arrives once. Each later arrival adds HEAT_OF_ARRIVAL,
 * and every epoch halves the heat. The class of a page goes by the binary logarithm of its heat, so one epoch moves a
 * page down by exactly one class. Lists that are kept by class can therefore be shifted as wholes (slot-lists.ts)
 * instead of page by page. How long an epoch lasts is not decided here: the owner calls fade().
 *
 * Invariant: heat changes the order in which pages are sent, never the set of pages.
 */
import type { PageIndex } from "../units.ts";

/** How many classes there are: 0 is cold (heat 0), and 8 is the hottest (heat 128 to 255). */
export const HEAT_CLASSES = 9;
const HEAT_OF_ARRIVAL = 32;
const HOTTEST = 255;
/** The lowest class that counts as hot: heat 32 and more. Such a page was dirtied again within the last epochs. */
export const HOT_CLASS = 6;

/** The class of a heat from 0 to 255. */
export const classOf = (heat: number): number => 32 - Math.clz32(heat);

export class HeatMap {
  /** The heat that each page had in the epoch that its `stamp` names. */
  private readonly heat: Uint8Array;
  /**
   * The epoch in which each page arrived last. It wraps after 65536 epochs: a page that was not dirtied for so long may
   * look warm once, which affects only the order in which pages are sent.
   */
  private readonly stamp: Uint16Array;
  /** 1 for a page that has arrived, 0 for the others. */
  private readonly seen: Uint8Array;
  private epoch = 0;
  /** How many pages have arrived at least once. */
  seenPages = 0;

  constructor(pageCount: number) {
    this.heat = new Uint8Array(pageCount);
    this.stamp = new Uint16Array(pageCount);
    this.seen = new Uint8Array(pageCount);
  }

  /** Notes an arrival of the page and returns its new heat, 0 to 255. */
  arrive(page: PageIndex): number {
    if (this.seen[page] === 0) {
      this.seen[page] = 1;
      this.seenPages++;
      this.stamp[page] = this.epoch;
      return 0;
    }
    const heat = Math.min(HOTTEST, this.of(page) + HEAT_OF_ARRIVAL);
    this.heat[page] = heat;
    this.stamp[page] = this.epoch;
    return heat;
  }

  /** The page's heat now, 0 to 255. */
  of(page: PageIndex): number {
    const age = (this.epoch - this.stamp[page]!) & 0xffff;
    return age > 8 ? 0 : this.heat[page]! >> age;
  }

  /** Begins the next epoch, which halves the heat of every page. */
  fade(): void {
    this.epoch = (this.epoch + 1) & 0xffff;
  }

  /** Counts the pages in each class, coldest first. Pages that never arrived are not counted. */
  histogram(): number[] {
    const counts = new Array<number>(HEAT_CLASSES).fill(0);
    for (let page = 0; page < this.heat.length; page++) {
      if (this.seen[page] === 0) continue;
      const age = (this.epoch - this.stamp[page]!) & 0xffff;
      const heat = age > 8 ? 0 : this.heat[page]! >> age;
      counts[classOf(heat)]!++;
    }
    return counts;
  }

  /** Cuts [firstPage, firstPage + pageCount) into at most `cells` equal stretches, and finds the mean heat of each. */
  cells(firstPage: number, pageCount: number, cells: number): { pagesPerCell: number; heat: Uint8Array } {
    const pagesPerCell = Math.max(1, Math.ceil(pageCount / Math.max(1, cells)));
    const heat = new Uint8Array(Math.ceil(pageCount / pagesPerCell));
    for (let cell = 0; cell < heat.length; cell++) {
      const start = firstPage + cell * pagesPerCell;
      const end = Math.min(start + pagesPerCell, firstPage + pageCount);
      let sum = 0;
      for (let page = start; page < end; page++) {
        const age = (this.epoch - this.stamp[page]!) & 0xffff;
        sum += age > 8 ? 0 : this.heat[page]! >> age;
      }
      heat[cell] = Math.round(sum / (end - start));
    }
    return { pagesPerCell, heat };
  }
}
