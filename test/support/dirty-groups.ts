/** A curve that tests know exactly, since it is computed from how often each page is dirtied. */
import type { DirtyCurve } from "../../shared/model/dirty-curve.ts";

/** Pages that are dirtied equally often, at moments that are independent of each other. */
export interface DirtyGroup {
  readonly pages: number;
  /** How often each of the pages is dirtied. */
  readonly timesPerSecond: number;
}

/**
 * Makes a curve from groups of pages, such as a histogram of re-dirty intervals. A page of rate r is dirtied within w
 * with probability 1 - exp(-r w).
 */
export function curveOfGroups(groups: readonly DirtyGroup[]): DirtyCurve {
  return {
    pagesWithin: (seconds) => {
      let pages = 0;
      for (const group of groups) pages -= group.pages * Math.expm1(-group.timesPerSecond * Math.max(0, seconds));
      return pages;
    },
  };
}
