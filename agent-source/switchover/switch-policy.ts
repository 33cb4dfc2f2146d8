/**
 * When to switch. Pure: everything it knows is in the observation.
 *
 * QEMU would switch when a local socket looks fast; here SWITCHOVER_ACK is withheld until the residual, as it would be
 * encoded, fits the downtime target on the real link. Then the feed is no longer paced, so that every sweep of QEMU's
 * bitmap finds less than the one before ("closing"), and the switch is made when that stops shrinking: at a local
 * minimum (KubeVirt VEP 248 found when to switch to matter more than how to encode).
 *
 * A migration that gets nowhere is recognised (stall-detector.ts) and said; it goes on until the deadline, or until a later
 * minimum fits.
 */
import type { DeadlineAction, Strategy } from "../../shared/protocol/messages.ts";
import { StallDetector } from "./stall-detector.ts";

export interface SwitchPlan {
  readonly strategy: Strategy;
  readonly downtimeTargetMs: number;
  /** 0: none. */
  readonly deadlineMs: number;
  readonly onDeadline: DeadlineAction;
}

/** Taken at the end of a RAM section of QEMU's stream, or on a timer. */
export interface Observation {
  readonly elapsedMs: number;
  /** QEMU's stream has come as far as its list of blocks. */
  readonly begun: boolean;
  /** Every page that QEMU sends was captured at least once. */
  readonly firstPassDone: boolean;
  /** Pages of the last section; when it drained QEMU's bitmap, about what the next sweep would find. */
  readonly sweptPages: number;
  /** Captured and not sent, pages and encoded bytes. */
  readonly residualPages: number;
  readonly residualBytes: number;
  /** The same as whole pages, which is what post-copy would send of it, encoded bytes. */
  readonly residualWholeBytes: number;
  /** Sent so far with content, with repeats. */
  readonly sentPages: number;
  /** Some of those pages are not held: they wait for the link, or for a worker to compress them. */
  readonly backlogged: boolean;
  /** Encoded bytes that one more dirtied page is likely to cost. */
  readonly bytesPerPage: number;
  /** That is known, and not a guess. */
  readonly knowsAgain: boolean;
  /** Given to the link and not acknowledged, encoded bytes. */
  readonly inFlightBytes: number;
  /** Zero pages in those. */
  readonly inFlightZeroPages: number;
  readonly bytesPerSecond: number;
  readonly roundTripMs: number;
  /** Time to capture, encode and apply one page, microseconds. */
  readonly microsPerPage: number;
  /** A section of QEMU's stream ended just now, and left no page dirty of those that QEMU knew of. */
  readonly drained: boolean;
  /** Nothing is heard from the destination. */
  readonly linkIsDown: boolean;
  /** The guest stands still: QEMU completes without being told to. */
  readonly paused: boolean;
}

export type Decision =
  | { readonly kind: "continue" }
  /** It fits, and what waits goes first: no sync before it has. */
  | { readonly kind: "drain" }
  /** Read the feed at full speed from now on. */
  | { readonly kind: "close" }
  /** Pace the feed again: it did not get small enough. */
  | { readonly kind: "pace" }
  | { readonly kind: "switch"; readonly into: "destination" | "postcopy"; readonly reason: string }
  | { readonly kind: "cancel"; readonly reason: string };

/**
 * What a switchover costs whatever the residual: QEMU's stop and last sweep, device state, load, journals, cont.
 * Measured with the demo's guest, see docs/results/. A figure for all guests: what earlier migrations measured does not change it.
 */
export const FIXED_COST_MS = 25;
/** Round trips between STOP and RESUME: loaded, grant. */
const ROUND_TRIPS = 2;
/**
 * What the destination's QEMU takes for a zero page: it looks whether the page is zero already (migration/ram.c, ram_handle_zero). Those of a
 * first pass are on their way in a moment and are not loaded in one: 130 000 of them were 0.1 s of downtime.
 */
const ZERO_PAGE_MICROS = 1;
/** Part of the downtime target that held pages may take. */
const HOLD_SHARE = 0.25;
/** Held pages that take less are not worth another sweep while the guest runs. */
const RELEASE_MS = 3;
/** A sweep that found more than this part of the one before has stopped shrinking. */
const SHRINKS = 0.8;
const SMALL_SWEEP_PAGES = 64;
const CLOSING_SECTIONS_MAX = 12;
/** An estimate below this has no backlog worth waiting for, milliseconds. */
const SHORT_MS = 2 * FIXED_COST_MS;
/** Time in which it is seen whether the link works off what waits, and the part of that time by which the estimate then falls. */
const DRAIN_MS = 100;
const DRAIN_PACE = 0.1;
/**
 * Post-copy begins behind so much precopy. What comes first in a guest's memory, its kernel, is then there when it needs it: the
 * pages that it would wait for one after the other before it gets anything done (docs/decisions/0026).
 */
const HEAD_START_MS = 450;

/** Milliseconds that encoded bytes take the link, and their pages the agents; of numbers, since it is asked before each page. */
export const sendingMs = (bytes: number, bytesPerSecond: number, pages: number, microsPerPage: number): number =>
  (1000 * bytes) / Math.max(1, bytesPerSecond) + (pages * microsPerPage) / 1000;

export class SwitchPolicy {
  private readonly plan: SwitchPlan;
  private closing = false;
  /** It fits: held pages go now, while the guest runs, and not when it is stopped. */
  private released = false;
  private closingSections = 0;
  private lastSwept = 0;
  /** Of the estimate, what depends on the residual. */
  private lastVariableMs = 0;
  private readonly stall = new StallDetector();
  /** Pages that will have been sent when all that waited at the end of the first pass was. */
  private sentOnceAt: number | undefined;
  private begunAtMs: number | undefined;
  private drainMark: { readonly elapsedMs: number; readonly estimateMs: number } | undefined;

  constructor(plan: SwitchPlan) {
    this.plan = plan;
  }

  /** Most hot pages to hold: what can be sent in a share of the downtime target; none once the switch is near. */
  holdPages(seen: Pick<Observation, "bytesPerPage" | "bytesPerSecond" | "microsPerPage">): number {
    if (this.released) return 0;
    const msPerPage = Math.max(1e-4, sendingMs(seen.bytesPerPage, seen.bytesPerSecond, 1, seen.microsPerPage));
    return Math.floor((HOLD_SHARE * this.plan.downtimeTargetMs) / msPerPage);
  }

  /** How long the estimate has not been getting less, milliseconds; 0 while it does. */
  stalledMs(elapsedMs: number): number {
    return this.stall.stalledMs(elapsedMs);
  }

  /** The same, of the whole migration. */
  totalStalledMs(elapsedMs: number): number {
    return this.stall.totalStalledMs(elapsedMs);
  }

  /** Downtime if the guest stopped now, milliseconds (estimated). */
  estimateMs(seen: Observation): number {
    const pages = seen.residualPages + seen.sweptPages;
    const bytes = seen.residualBytes + seen.sweptPages * seen.bytesPerPage;
    const leftMs = sendingMs(bytes, seen.bytesPerSecond, pages, seen.microsPerPage);
    return this.constantMs(seen) + leftMs + this.onItsWayMs(seen);
  }

  fits(estimateMs: number): boolean {
    return estimateMs <= this.plan.downtimeTargetMs;
  }

  /** Time that what is captured and not sent takes. */
  private residualMs({ residualBytes, residualPages, bytesPerSecond, microsPerPage }: Observation): number {
    return sendingMs(residualBytes, bytesPerSecond, residualPages, microsPerPage);
  }

  /** Time until what was given to the link is there. */
  private onItsWayMs({ inFlightBytes, inFlightZeroPages, bytesPerSecond }: Observation): number {
    return sendingMs(inFlightBytes, bytesPerSecond, inFlightZeroPages, ZERO_PAGE_MICROS);
  }

  private constantMs({ roundTripMs }: Observation): number {
    return FIXED_COST_MS + ROUND_TRIPS * roundTripMs;
  }

  decide(seen: Observation): Decision {
    if (seen.paused) return this.whilePaused(seen);
    if (this.plan.strategy === "stop-and-copy")
      return { kind: "switch", into: "destination", reason: "strategy stop-and-copy" };
    if (this.plan.strategy === "postcopy") return this.atOnce(seen);
    if (this.plan.deadlineMs > 0 && seen.elapsedMs >= this.plan.deadlineMs) return this.atDeadline(seen);
    if (seen.linkIsDown) this.stall.interrupted(seen.elapsedMs);
    if (seen.firstPassDone && this.plan.strategy === "hybrid" && this.hasSentOnce(seen)) {
      // what deltas bring is seen by some pages that were sent again, and there is no way back from post-copy
      const goesOn = !seen.knowsAgain || this.fits(this.estimateMs(seen)) || deltasHelp(seen);
      const early = goesOn ? undefined : this.intoPostcopy(seen, "every page was sent once");
      if (early !== undefined) return early;
    }
    // between two drained sections the estimate leaves out what QEMU has still to send
    if (!seen.firstPassDone || !seen.drained) return { kind: "continue" };
    const estimate = this.estimateMs(seen);
    if (!seen.linkIsDown) this.stall.estimated(estimate, seen.elapsedMs);
    const fits = this.fits(estimate);
    if (!fits) {
      this.drainMark = undefined;
      this.released = false;
    }
    const early = this.plan.strategy === "hybrid" && !fits ? this.whenLaidDown(seen) : undefined;
    if (early !== undefined) return early;
    if (!this.closing) {
      if (!fits) return { kind: "continue" };
      if (this.isDraining(seen, estimate)) return { kind: "drain" };
      if (!this.released && this.residualMs(seen) > RELEASE_MS) {
        this.released = true;
        this.drainMark = undefined;
        return { kind: "drain" };
      }
      this.closing = true;
      this.closingSections = 0;
      this.lastSwept = Number.POSITIVE_INFINITY;
      this.lastVariableMs = estimate - this.constantMs(seen);
      if (seen.sweptPages > SMALL_SWEEP_PAGES) return { kind: "close" };
    }
    return this.whileClosing(seen, estimate, fits);
  }

  /**
   * No moment is better than another, and none has to be chosen. Acknowledged, QEMU would send all that is left in one piece,
   * and its monitor would not answer meanwhile.
   */
  private whilePaused({ elapsedMs }: Observation): Decision {
    const { deadlineMs, onDeadline } = this.plan;
    if (deadlineMs === 0 || elapsedMs < deadlineMs || onDeadline !== "cancel") return { kind: "continue" };
    return { kind: "cancel", reason: `deadline of ${deadlineMs} ms reached; the guest is paused, and not copied yet` };
  }

  /** Post-copy from the start, behind a moment of precopy. */
  private atOnce(seen: Observation): Decision {
    if (!seen.begun) return { kind: "continue" };
    this.begunAtMs ??= seen.elapsedMs;
    const isAhead = seen.elapsedMs - this.begunAtMs >= HEAD_START_MS || (seen.firstPassDone && !seen.backlogged);
    if (!isAhead || seen.linkIsDown) return { kind: "continue" };
    return { kind: "switch", into: "postcopy", reason: "strategy postcopy" };
  }

  /** Hybrid: everything but what is held for its heat was sent, or it does not converge. */
  private whenLaidDown(seen: Observation): Decision | undefined {
    if (this.stall.stalledMs(seen.elapsedMs) > 0) return this.intoPostcopy(seen, "it does not converge");
    return seen.backlogged ? undefined : this.intoPostcopy(seen, "all but the hottest pages are there");
  }

  /** Has what waited at the end of the first pass been sent since? What waits now was dirtied again meanwhile. */
  private hasSentOnce({ sentPages, residualPages }: Observation): boolean {
    this.sentOnceAt ??= sentPages + residualPages;
    return sentPages >= this.sentOnceAt;
  }

  /** What is left must fit in the time that the deadline leaves, and the link must be there. */
  private intoPostcopy(seen: Observation, why: string): Decision | undefined {
    const restMs = this.estimateMs(seen);
    const { deadlineMs } = this.plan;
    if (seen.linkIsDown || (deadlineMs > 0 && seen.elapsedMs + restMs > deadlineMs)) return undefined;
    return { kind: "switch", into: "postcopy", reason: `hybrid: ${why}, ${restMs.toFixed(0)} ms of pages are left` };
  }

  /**
   * Much waits to be sent or is on its way, as after the first pass: while that gets less, a later moment is the better
   * one. Two moments may be less than a millisecond apart, so it takes some time to see that it does not.
   */
  private isDraining(seen: Observation, estimateMs: number): boolean {
    const { elapsedMs } = seen;
    const waits = seen.backlogged || this.onItsWayMs(seen) > FIXED_COST_MS;
    if (!waits || estimateMs <= SHORT_MS) return false;
    const mark = this.drainMark;
    if (mark !== undefined && elapsedMs - mark.elapsedMs < DRAIN_MS) return true;
    this.drainMark = { elapsedMs, estimateMs };
    return mark === undefined || estimateMs < mark.estimateMs - DRAIN_PACE * (elapsedMs - mark.elapsedMs);
  }

  private whileClosing(seen: Observation, estimate: number, fits: boolean): Decision {
    this.closingSections++;
    const variable = estimate - this.constantMs(seen);
    const sweepsShrink = seen.sweptPages < SHRINKS * this.lastSwept && seen.sweptPages > SMALL_SWEEP_PAGES;
    const residualShrinks = variable < SHRINKS * this.lastVariableMs && variable > FIXED_COST_MS;
    this.lastSwept = seen.sweptPages;
    this.lastVariableMs = variable;
    if (fits && (!(sweepsShrink || residualShrinks) || this.closingSections >= CLOSING_SECTIONS_MAX)) {
      const target = this.plan.downtimeTargetMs;
      const sweeps = `${this.closingSections} closing sweep${this.closingSections === 1 ? "" : "s"}`;
      return {
        kind: "switch",
        into: "destination",
        reason: `the residual fits: estimated downtime ${estimate.toFixed(0)} ms of ${target} ms, local minimum after ${sweeps}${this.stallText(seen)}`,
      };
    }
    if (!fits && this.closingSections >= CLOSING_SECTIONS_MAX) {
      this.closing = false;
      return { kind: "pace" };
    }
    return { kind: "continue" };
  }

  private atDeadline(seen: Observation): Decision {
    const estimate = this.estimateMs(seen).toFixed(0);
    const found = `deadline of ${this.plan.deadlineMs} ms reached with an estimated downtime of ${estimate} ms, target ${this.plan.downtimeTargetMs} ms${this.stallText(seen)}`;
    switch (this.plan.onDeadline) {
      case "force":
        return { kind: "switch", into: "destination", reason: `${found}: forced, as agreed` };
      case "postcopy":
        // a guest is not made to depend on a link that is not there
        if (seen.linkIsDown) return { kind: "continue" };
        return { kind: "switch", into: "postcopy", reason: `${found}: post-copy, as agreed` };
      case "cancel":
        return { kind: "cancel", reason: found };
    }
  }

  private stallText({ elapsedMs }: Observation): string {
    const stalled = this.stall.totalStalledMs(elapsedMs);
    return stalled === 0 ? "" : `; it did not converge for ${(stalled / 1000).toFixed(1)} s`;
  }
}

/** Another pass of precopy is this much cheaper than the same pages in post-copy, whose bases are discarded. */
const DELTAS_HELP = 3;

const deltasHelp = ({ residualBytes, residualWholeBytes }: Observation): boolean =>
  residualWholeBytes > DELTAS_HELP * residualBytes;
