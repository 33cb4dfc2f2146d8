/**
 * How many different pages a guest dirties within a time. The model needs to know nothing else about what the guest
 * does.
 *
 *     pages
 *       │          ┌────────  a loop over the memory: all of it within one turn, then no new page
 *       │       ／ ___───     most guests: a few pages all the time, others now and then
 *       │    ／／
 *       └──────────── seconds
 *
 * A curve never decreases, and is 0 at 0. The predictions rest on these two properties alone (docs/design/model.md).
 */

export interface DirtyCurve {
  /** Tells how many different pages are dirtied within `seconds` seconds. */
  pagesWithin(seconds: number): number;
}

/** An observation: within `seconds` seconds, `pages` different pages were dirtied. */
export interface DirtySample {
  readonly seconds: number;
  readonly pages: number;
}

/**
 * Makes a curve through samples of several lengths. It is straight between two samples, and rises after the last sample
 * as steeply as before it, up to `mostPages`. A window with fewer pages than a shorter window counts as if it had as
 * many.
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
  // a fraction of the way between the two samples is computed and not a slope, since the slope between two samples of
  // almost the same length may be too large for a number
  const part = (Math.max(0, seconds) - before.seconds) / (after.seconds - before.seconds);
  return next < 0 ? before.pages + rise * part : Math.min(after.pages, before.pages + rise * part);
}

/** Returns the curve of the same guest with all of its rates multiplied by `factor`. */
export const faster = (curve: DirtyCurve, factor: number): DirtyCurve => ({
  pagesWithin: (seconds) => curve.pagesWithin(factor * seconds),
});

/**
 * For how many lengths of windows a mean is kept. Each length is twice the length before it, and takes the windows up
 * to the next length. The last length is about a day and a half, and takes every longer window too.
 */
const LENGTHS = 28;
/** The shortest of these lengths, seconds. It takes every shorter window too. */
const SHORTEST = 0.001;
/** Weight of a new window in the mean of its length, 0 to 1. */
const SMOOTHING = 0.3;
/**
 * A mean is forgotten when it is older than this, seconds, and older than FORGET_LENGTHS times its length: the guest is
 * in another phase then.
 */
const FORGET_SECONDS = 10;
const FORGET_LENGTHS = 4;

/** Collects what a running migration sees of its guest: one mean for each length of windows. */
export class DirtyWindows {
  private readonly seconds = new Float64Array(LENGTHS);
  private readonly pages = new Float64Array(LENGTHS);
  private readonly seenAt = new Float64Array(LENGTHS).fill(Number.NEGATIVE_INFINITY);

  /**
   * Notes that `pages` different pages were dirtied within `seconds` seconds.
   * @param now seconds on any clock that is never set back
   */
  note(seconds: number, pages: number, now: number): void {
    if (!(seconds > 0)) return;
    const at = Math.min(LENGTHS - 1, Math.max(0, Math.floor(Math.log2(seconds / SHORTEST))));
    const weight = this.isForgotten(at, now) ? 1 : SMOOTHING;
    this.seconds[at]! += weight * (seconds - this.seconds[at]!);
    this.pages[at]! += weight * (pages - this.pages[at]!);
    this.seenAt[at] = now;
  }

  /** Returns the means that are not forgotten, shortest first. */
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
