/**
 * How many different pages a guest dirties within a time: the one thing that the model has to know of what it does.
 *
 *     pages
 *       │          ┌────────  a loop over its memory: all of it within one turn, then nothing new
 *       │       ／ ___───     as most guests do: a few pages all the time, others now and then
 *       │    ／／
 *       └──────────── seconds
 *
 * Never decreasing, 0 at 0. The predictions rest on that alone (docs/model.md).
 */

export interface DirtyCurve {
  /** Different pages that are dirtied within so many seconds. */
  pagesWithin(seconds: number): number;
}

/** Pages that are dirtied alike, each as often as said, at moments that have nothing to do with each other. */
export interface DirtyGroup {
  readonly pages: number;
  /** Of one page. */
  readonly timesPerSecond: number;
}

/** From a histogram of re-dirty intervals: a page of rate r is dirtied within w with probability 1 - exp(-r w). */
export function curveOfGroups(groups: readonly DirtyGroup[]): DirtyCurve {
  return {
    pagesWithin: (seconds) => {
      let pages = 0;
      for (const group of groups) pages -= group.pages * Math.expm1(-group.timesPerSecond * Math.max(0, seconds));
      return pages;
    },
  };
}

/** Seen: so many different pages within so many seconds. */
export interface DirtySample {
  readonly seconds: number;
  readonly pages: number;
}

/**
 * Through samples at several lengths; straight between them, and behind the last one as steep as before it, up to
 * `mostPages`. A longer window that was found with fewer pages than a shorter one is given as many.
 */
export function curveOfSamples(samples: readonly DirtySample[], mostPages: number): DirtyCurve {
  const points: DirtySample[] = [{ seconds: 0, pages: 0 }];
  for (const { seconds, pages } of [...samples].sort((one, other) => one.seconds - other.seconds)) {
    const last = points[points.length - 1]!;
    const point = { seconds, pages: Math.min(mostPages, Math.max(last.pages, pages)) };
    if (seconds > last.seconds) points.push(point);
    else if (seconds > 0) points[points.length - 1] = point;
  }
  return { pagesWithin: (seconds) => Math.min(mostPages, interpolate(points, seconds)) };
}

function interpolate(points: readonly DirtySample[], seconds: number): number {
  const next = points.findIndex((point) => point.seconds >= seconds);
  const to = next < 0 ? points.length - 1 : Math.max(1, next);
  const [before, after] = [points[to - 1], points[to]];
  if (before === undefined || after === undefined) return 0;
  const rise = after.pages - before.pages;
  if (rise === 0) return before.pages;
  // The part of the way, not a slope: between two samples that are all but one moment a slope may have no number.
  const part = (Math.max(0, seconds) - before.seconds) / (after.seconds - before.seconds);
  return next < 0 ? before.pages + rise * part : Math.min(after.pages, before.pages + rise * part);
}

/** The same guest with all of its rates times a factor. */
export const faster = (curve: DirtyCurve, factor: number): DirtyCurve => ({
  pagesWithin: (seconds) => curve.pagesWithin(factor * seconds),
});

/** Windows longer than the longest one are put to it: about a day. */
const LENGTHS = 28;
/** Shortest window that is told from a shorter one, seconds. */
const SHORTEST = 0.001;
/** Part of what is known of a length that one more window replaces. */
const SMOOTHING = 0.3;
/** What was seen so long ago, and so many times the window's own length, is about another phase of the guest. */
const FORGET_SECONDS = 10;
const FORGET_LENGTHS = 4;

/** Collects what a running migration sees: one mean for each length of windows, lengths doubling. */
export class DirtyWindows {
  private readonly seconds = new Float64Array(LENGTHS);
  private readonly pages = new Float64Array(LENGTHS);
  private readonly seenAt = new Float64Array(LENGTHS).fill(Number.NEGATIVE_INFINITY);

  /** Within `seconds` so many different pages were dirtied. @param now seconds on any clock that goes on */
  note(seconds: number, pages: number, now: number): void {
    if (!(seconds > 0)) return;
    const at = Math.min(LENGTHS - 1, Math.max(0, Math.floor(Math.log2(seconds / SHORTEST))));
    const weight = this.isForgotten(at, now) ? 1 : SMOOTHING;
    this.seconds[at]! += weight * (seconds - this.seconds[at]!);
    this.pages[at]! += weight * (pages - this.pages[at]!);
    this.seenAt[at] = now;
  }

  samples(now: number): DirtySample[] {
    const found: DirtySample[] = [];
    for (let at = 0; at < LENGTHS; at++)
      if (!this.isForgotten(at, now)) found.push({ seconds: this.seconds[at]!, pages: this.pages[at]! });
    return found;
  }

  private isForgotten(at: number, now: number): boolean {
    return now - this.seenAt[at]! > Math.max(FORGET_SECONDS, FORGET_LENGTHS * this.seconds[at]!);
  }
}
