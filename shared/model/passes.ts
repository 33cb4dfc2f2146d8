/**
 * Predicts how long it takes to copy what the guest dirties while it is copied, pass after pass. A pass lasts for as
 * long as it takes to send the pages that were dirtied in the pass before. A page that is dirtied several times in a
 * pass is sent once (coalescing), and held pages are not sent.
 *
 *     W(k+1) = max(period, (U(W(k)) - held) x time of a page)      U: dirty-curve.ts
 *
 * U never decreases. So once a pass is not shorter than the pass before it, no later pass is shorter either: the
 * copying does not converge.
 */
import type { DirtyCurve } from "./dirty-curve.ts";

export interface PassCosts {
  /**
   * The seconds to send a page again, by the age of its base in seconds: those of the link or of the agents, whichever
   * is slower.
   */
  readonly secondsPerPage: (ageSeconds: number) => number;
  /** The encoded bytes of a page that is sent again, by the age of its base in seconds. */
  readonly bytesPerPage: (ageSeconds: number) => number;
  /** The shortest pass. No pass is shorter, because the source agent paces the reading of QEMU's stream. */
  readonly periodSeconds: number;
  /** The most hot pages that are held until the switch is near. */
  readonly heldPages: number;
  /** The most pages that may be left when the guest is stopped. */
  readonly stopPages: number;
}

export interface Passes {
  /** True when the pages that are dirtied within the last pass are no more than may be left at the end. */
  readonly converges: boolean;
  readonly seconds: number;
  readonly bytesSent: number;
  /** The length of the last pass. */
  readonly lastSeconds: number;
}

/** So many passes count as passes without end: each is shorter than the pass before it, but by less and less. */
const PASSES_MAX = 1000;

/** Predicts the passes after a first copy. @param firstSeconds how long that copy took, with the guest running */
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

/** The closing sweeps, ahead of the stop. */
export interface Closing {
  readonly seconds: number;
  readonly bytesSent: number;
  /** The length of the last sweep, which is the local minimum at which the guest is stopped. */
  readonly lastSeconds: number;
}

/**
 * How many closing sweeps are counted in the predicted time and bytes. The prediction assumes that the agent sees after
 * these that the sweeps get no shorter, and stops the guest.
 */
const CLOSING_SWEEPS = 4;

/**
 * Predicts the closing sweeps, in which QEMU's stream is read at full speed. They get shorter until what is dirtied in
 * a sweep takes as long to send as the sweep lasts.
 * @param from length of the last pass before them, seconds
 * @param shortestSeconds length of the shortest possible sweep
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
  // all sweeps are followed although only the first CLOSING_SWEEPS are counted: otherwise a guest that dirties more
  // could end at a shorter sweep
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
