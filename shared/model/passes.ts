/**
 * Copying what is dirtied while it is copied: pass after pass, each as long as it takes to send what was dirtied in the one
 * before. A page that is dirtied several times in a pass is sent once (coalescing), held pages are not sent.
 *
 *     W(k+1) = max(period, (U(W(k)) - held) x time of a page)      U: dirty-curve.ts
 *
 * U never decreases, so a pass that is not shorter than the one before is followed by none that is: then it does not
 * converge, whatever comes.
 */
import type { DirtyCurve } from "./dirty-curve.ts";

export interface PassCosts {
  /** To send one page again whose base is so many seconds old; the narrowest of link and agents. */
  readonly secondsPerPage: (ageSeconds: number) => number;
  /** And its encoded bytes. */
  readonly bytesPerPage: (ageSeconds: number) => number;
  /** Shortest pass: the feed is paced. */
  readonly periodSeconds: number;
  /** Most hot pages that are kept back until the end. */
  readonly heldPages: number;
  /** Most pages that may be left for the guest to be stopped. */
  readonly stopPages: number;
}

export interface Passes {
  /** What is dirtied within a pass fits what may be left at the end. */
  readonly converges: boolean;
  readonly seconds: number;
  readonly bytesSent: number;
  /** Of the last pass. */
  readonly lastSeconds: number;
}

/** More are not worth being told from passes without end: each is shorter than the one before, by less and less. */
const PASSES_MAX = 1000;

/** @param firstSeconds what was copied before, with the guest running, took so long */
export function copyDirtied(curve: DirtyCurve, costs: PassCosts, firstSeconds: number): Passes {
  let last = firstSeconds;
  let seconds = 0;
  let bytesSent = 0;
  for (let pass = 0; pass < PASSES_MAX; pass++) {
    const dirtied = curve.pagesWithin(last);
    if (dirtied <= costs.stopPages) return { converges: true, seconds, bytesSent, lastSeconds: last };
    const sent = Math.max(0, dirtied - costs.heldPages);
    const next = Math.max(costs.periodSeconds, sent * costs.secondsPerPage(last));
    if (next >= last) break;
    seconds += next;
    bytesSent += sent * costs.bytesPerPage(last);
    last = next;
  }
  return { converges: false, seconds, bytesSent, lastSeconds: last };
}

export interface Closing {
  readonly seconds: number;
  readonly bytesSent: number;
  /** Length of the sweep at the local minimum, at which the guest is stopped. */
  readonly lastSeconds: number;
}

/** Sweeps until it is seen that they get no shorter. */
const CLOSING_SWEEPS = 4;

/**
 * The feed at full speed: sweeps get shorter until what is dirtied in one takes as long to send.
 * @param from the last pass before it, seconds
 * @param shortestSeconds of a sweep
 */
export function closeIn(
  curve: DirtyCurve,
  { secondsPerPage, bytesPerPage, heldPages }: Pick<PassCosts, "secondsPerPage" | "bytesPerPage" | "heldPages">,
  from: number,
  shortestSeconds: number,
): Closing {
  let last = from;
  let seconds = 0;
  let bytesSent = 0;
  // to its end, although the first sweeps are all that takes time: a guest that dirties more ends at no shorter sweep
  for (let sweep = 0; sweep < PASSES_MAX; sweep++) {
    const sent = Math.max(0, curve.pagesWithin(last) - heldPages);
    const next = Math.max(Math.min(shortestSeconds, last), Math.min(last, sent * secondsPerPage(last)));
    if (sweep < CLOSING_SWEEPS) {
      seconds += next;
      bytesSent += sent * bytesPerPage(last);
    } else if (next === last) break;
    last = next;
  }
  return { seconds, bytesSent, lastSeconds: last };
}
