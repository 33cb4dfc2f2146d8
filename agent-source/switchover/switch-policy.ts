/**
 * Decides when to switch. Pure: everything that the policy knows is in the observation.
 *
 * QEMU by itself would switch when a local socket looks fast. Ferry withholds SWITCHOVER_ACK until the residual, in its
 * encoded size, fits the downtime target on the real link. Then QEMU's stream is read at full speed, so that every
 * sweep of QEMU over its bitmap finds less than the sweep before; this is called *closing*. The switch is made when the
 * sweeps stop shrinking, at a local minimum. (KubeVirt VEP 248 found that the moment of the switch matters more than
 * the encoding.)
 *
 * A migration that does not converge is recognised (stall-detector.ts) and reported. It goes on until the deadline, or
 * until a later minimum fits.
 */
import { HOLD_SHARE } from "../../shared/model/switchover.ts";
import type { DeadlineAction, Strategy } from "../../shared/protocol/messages.ts";
import { AutoChoice, type Prospects } from "./auto-choice.ts";
import { constantMs, estimateMs, FIXED_COST_MS, onItsWayMs, residualMs, sendingMs } from "./downtime-estimate.ts";
import type { Decision, Observation } from "./observation.ts";
import { StallDetector } from "./stall-detector.ts";

export interface SwitchPlan {
  /** The strategy with which the migration begins. */
  readonly strategy: Strategy;
  /**
   * True if a migration that begins as precopy goes into post-copy as soon as that is better, as with `auto`.
   * @default false
   */
  readonly mayChoosePostcopy?: boolean;
  /**
   * True if another strategy would let the operator have post-copy, which this migration may not use.
   * @default false
   */
  readonly postcopyByOption?: boolean;
  readonly downtimeTargetMs: number;
  /** 0: there is no deadline. */
  readonly deadlineMs: number;
  readonly onDeadline: DeadlineAction;
}

/**
 * A residual that takes at most this long, milliseconds, is not worth another sweep while the guest runs: it goes with
 * the last pages (docs/design/switchover.md#the-moment-of-the-switch).
 */
const RELEASE_MS = 3;
/**
 * A sweep, or an estimate, of at least this fraction of the one before has stopped shrinking
 * (docs/design/switchover.md#the-moment-of-the-switch).
 */
const SHRINKS = 0.8;
/** A sweep of this many pages or fewer is as good as empty: the switch does not wait for a smaller one. */
const SMALL_SWEEP_PAGES = 64;
/** The most closing sweeps. After them the switch is made if the estimate fits; otherwise reading is paced again. */
const CLOSING_SECTIONS_MAX = 12;
/** With an estimated downtime of at most this, there is no backlog worth waiting for, milliseconds. */
const SHORT_MS = 2 * FIXED_COST_MS;
/**
 * How long to watch before judging whether the backlog shrinks, milliseconds
 * (docs/design/switchover.md#the-moment-of-the-switch).
 */
const DRAIN_MS = 100;
/** The backlog shrinks if the estimated downtime falls by more than this fraction of the elapsed time. */
const DRAIN_PACE = 0.1;
/**
 * How long a migration with strategy `postcopy` copies as in precopy before post-copy begins, milliseconds. A guest's
 * kernel comes first in its memory, so the kernel's pages are then at the destination when the guest needs them.
 * Without them the guest would wait for one page after the other before it gets anything done
 * (docs/design/post-copy.md#the-head-start).
 */
const HEAD_START_MS = 450;

export class SwitchPolicy {
  private readonly plan: SwitchPlan;
  private closing = false;
  /** True once the residual fits: held pages are sent now, while the guest runs, and not after it was stopped. */
  private released = false;
  private closingSections = 0;
  private lastSwept = 0;
  /** The part of the last estimate that depends on the residual and on what is in flight, milliseconds. */
  private lastVariableMs = 0;
  private readonly stall = new StallDetector();
  private readonly auto: AutoChoice;
  /** The value of `sentPages` at which all pages that waited at the end of the first pass were sent. */
  private sentOnceAt: number | undefined;
  private begunAtMs: number | undefined;
  /** The estimate with which isDraining() compares the next one, and when it was made. */
  private drainMark: { readonly elapsedMs: number; readonly estimateMs: number } | undefined;

  constructor(plan: SwitchPlan) {
    this.plan = plan;
    this.auto = new AutoChoice(plan);
  }

  /** Takes how a copy by precopy would go on from now; undefined while too little is known. */
  foresee(prospects: Prospects | undefined, elapsedMs: number): void {
    if (this.plan.strategy === "precopy") this.auto.foresee(prospects, elapsedMs);
  }

  /** What the operator should know of a precopy that has no end; empty where there is nothing to say. */
  outlook(elapsedMs: number): string {
    const judged = this.mayChoosePostcopy ? undefined : this.auto.counts(elapsedMs);
    if (judged?.isEndless !== true) return "";
    const { onDeadline, postcopyByOption } = this.plan;
    const ways = ["a larger --downtime"];
    if (onDeadline !== "force") ways.push("a --deadline with --on-deadline force");
    if (postcopyByOption === true) ways.push("--strategy auto, which goes into post-copy,");
    return `${judged.found}; ${ways.join(" or ")} would end it`;
  }

  /** The most hot pages to hold: what can be sent in HOLD_SHARE of the downtime target; 0 once the switch is near. */
  holdPages(seen: Pick<Observation, "bytesPerPage" | "bytesPerSecond" | "microsPerPage">): number {
    if (this.released) return 0;
    const msPerPage = Math.max(1e-4, sendingMs(seen.bytesPerPage, seen.bytesPerSecond, 1, seen.microsPerPage));
    return Math.floor((HOLD_SHARE * this.plan.downtimeTargetMs) / msPerPage);
  }

  /** How long the migration has been stalled, milliseconds; 0 while it converges. */
  stalledMs(elapsedMs: number): number {
    return this.stall.stalledMs(elapsedMs);
  }

  /** How long all stalls of the migration lasted, the present one included, milliseconds. */
  totalStalledMs(elapsedMs: number): number {
    return this.stall.totalStalledMs(elapsedMs);
  }

  fits(estimateMs: number): boolean {
    return estimateMs <= this.plan.downtimeTargetMs;
  }

  decide(seen: Observation): Decision {
    if (seen.paused) return this.whilePaused(seen);
    const { strategy, deadlineMs, onDeadline } = this.plan;
    const isBounded = deadlineMs > 0 && (strategy === "precopy" || strategy === "hybrid");
    const isLate = isBounded && seen.elapsedMs >= deadlineMs;
    if (seen.linkIsDown && !(isLate && onDeadline === "cancel")) return this.whileLinkIsDown(seen);
    if (strategy === "stop-and-copy") return { kind: "switch", into: "destination", reason: "strategy stop-and-copy" };
    if (strategy === "postcopy") return this.atOnce(seen);
    if (isLate) return this.atDeadline(seen);
    const chosen = this.mayChoosePostcopy ? this.asJudged(seen) : undefined;
    if (chosen !== undefined) return chosen;
    if (seen.firstPassDone && strategy === "hybrid" && this.hasSentOnce(seen)) {
      // only pages that were sent again show what deltas save: precopy goes on until resendCostIsMeasured, since
      // post-copy cannot be undone
      const goesOn = !seen.resendCostIsMeasured || this.fits(estimateMs(seen)) || deltasHelp(seen);
      const early = goesOn ? undefined : this.intoPostcopy(seen, "every page was sent once");
      if (early !== undefined) return early;
    }
    // between two drained sections the estimate leaves out the pages that QEMU has still to send
    if (!seen.firstPassDone || !seen.drained) return { kind: "continue" };
    const estimate = estimateMs(seen);
    this.stall.estimated(estimate, seen.elapsedMs);
    const fits = this.fits(estimate);
    if (!fits) {
      this.drainMark = undefined;
      this.released = false;
    }
    const early = fits ? undefined : this.earlyIntoPostcopy(seen);
    if (early !== undefined) return early;
    if (!this.closing) {
      if (!fits) return { kind: "continue" };
      if (this.isDraining(seen, estimate)) return { kind: "drain" };
      if (!this.released && residualMs(seen) > RELEASE_MS) {
        this.released = true;
        this.drainMark = undefined;
        return { kind: "drain" };
      }
      this.closing = true;
      this.closingSections = 0;
      this.lastSwept = Number.POSITIVE_INFINITY;
      this.lastVariableMs = estimate - constantMs(seen);
      if (seen.sweptPages > SMALL_SWEEP_PAGES) return { kind: "close" };
    }
    return this.whileClosing(seen, estimate, fits);
  }

  /**
   * Decides while the link is down. The guest is not stopped, since the link could not carry its last pages, and does
   * not go into post-copy, in which it would depend on the link. Closing ends, because the stream is read at full speed
   * during closing, which is meant to last for moments only.
   */
  private whileLinkIsDown({ elapsedMs }: Observation): Decision {
    this.stall.interrupted(elapsedMs);
    const wasClosing = this.closing;
    this.closing = false;
    return { kind: wasClosing ? "pace" : "continue" };
  }

  /**
   * Decides while the guest stands still. No moment is better than another, and none has to be chosen, since QEMU
   * completes by itself. If the switch were acknowledged, QEMU would send all that is left in one piece, and its
   * monitor would not answer meanwhile (docs/design/switchover.md#a-paused-guest).
   */
  private whilePaused({ elapsedMs }: Observation): Decision {
    const { deadlineMs, onDeadline } = this.plan;
    if (deadlineMs === 0 || elapsedMs < deadlineMs || onDeadline !== "cancel") return { kind: "continue" };
    return { kind: "cancel", reason: `deadline of ${deadlineMs} ms reached; the guest is paused, and not copied yet` };
  }

  /** Decides for `postcopy`: post-copy begins after a head start of precopy. */
  private atOnce(seen: Observation): Decision {
    if (!seen.begun) return { kind: "continue" };
    this.begunAtMs ??= seen.elapsedMs;
    const isAhead = seen.elapsedMs - this.begunAtMs >= HEAD_START_MS || (seen.firstPassDone && !seen.backlogged);
    if (!isAhead) return { kind: "continue" };
    return { kind: "switch", into: "postcopy", reason: "strategy postcopy" };
  }

  private get mayChoosePostcopy(): boolean {
    return this.plan.mayChoosePostcopy === true && this.plan.strategy === "precopy";
  }

  /**
   * Decides for `auto`: post-copy begins when it was foreseen for long enough that it ends sooner. Where deltas help,
   * precopy goes on as with `hybrid`.
   */
  private asJudged(seen: Observation): Decision | undefined {
    const judged = this.auto.counts(seen.elapsedMs);
    if (judged === undefined || !judged.meets || deltasHelp(seen) || this.fits(estimateMs(seen))) return undefined;
    const { found, postcopySeconds } = judged;
    const reason = `auto: ${found}; post-copy takes about ${postcopySeconds.toFixed(1)} s`;
    return { kind: "switch", into: "postcopy", reason };
  }

  /**
   * Decides at the end of a pass whose residual does not fit. With `hybrid` and `auto` post-copy begins when precopy
   * does not converge, and with `hybrid` also when only held pages are left.
   */
  private earlyIntoPostcopy(seen: Observation): Decision | undefined {
    const isHybrid = this.plan.strategy === "hybrid";
    if (!isHybrid && !this.mayChoosePostcopy) return undefined;
    // a target below what any switchover costs is missed by every strategy, and is no reason to need both hosts
    if (!isHybrid && constantMs(seen) >= this.plan.downtimeTargetMs) return undefined;
    if (this.stall.stalledMs(seen.elapsedMs) > 0) return this.intoPostcopy(seen, "it does not converge");
    if (seen.backlogged || !isHybrid) return undefined;
    return this.intoPostcopy(seen, "all but the hottest pages are at the destination");
  }

  /**
   * Tells whether everything that waited at the end of the first pass was sent since. Pages that wait now were dirtied
   * again meanwhile.
   */
  private hasSentOnce({ sentPages, residualPages }: Observation): boolean {
    this.sentOnceAt ??= sentPages + residualPages;
    return sentPages >= this.sentOnceAt;
  }

  /** Decides for post-copy, unless the deadline leaves too little time for what is left. */
  private intoPostcopy(seen: Observation, why: string): Decision | undefined {
    // post-copy discards the bases, so it sends whole pages
    const restMs = estimateMs(this.mayChoosePostcopy ? { ...seen, residualBytes: seen.residualWholeBytes } : seen);
    const { deadlineMs } = this.plan;
    if (deadlineMs > 0 && seen.elapsedMs + restMs > deadlineMs) return undefined;
    const by = this.mayChoosePostcopy ? "auto" : "hybrid";
    const reason = `${by}: ${why}; sending the pages that are left takes ${restMs.toFixed(0)} ms`;
    return { kind: "switch", into: "postcopy", reason };
  }

  /**
   * Tells whether there is a backlog that gets shorter, so that a later moment is a better one to switch. After the
   * first pass, for example, pages wait to be sent, or much is in flight. Two calls may be less than a millisecond
   * apart, so the estimates are compared only over DRAIN_MS or more; until then the answer is true.
   */
  private isDraining(seen: Observation, nowMs: number): boolean {
    const { elapsedMs } = seen;
    const waits = seen.backlogged || onItsWayMs(seen) > FIXED_COST_MS;
    if (!waits || nowMs <= SHORT_MS) return false;
    const mark = this.drainMark;
    if (mark !== undefined && elapsedMs - mark.elapsedMs < DRAIN_MS) return true;
    this.drainMark = { elapsedMs, estimateMs: nowMs };
    return mark === undefined || nowMs < mark.estimateMs - DRAIN_PACE * (elapsedMs - mark.elapsedMs);
  }

  private whileClosing(seen: Observation, estimate: number, fits: boolean): Decision {
    this.closingSections++;
    const variable = estimate - constantMs(seen);
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
    const estimate = estimateMs(seen).toFixed(0);
    const found = `deadline of ${this.plan.deadlineMs} ms reached with an estimated downtime of ${estimate} ms, target ${this.plan.downtimeTargetMs} ms${this.stallText(seen)}`;
    switch (this.plan.onDeadline) {
      case "force":
        return { kind: "switch", into: "destination", reason: `${found}: forced, as agreed` };
      case "postcopy":
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

/**
 * How many times fewer bytes than post-copy another pass of precopy must need for hybrid to go on with precopy.
 * Post-copy discards the bases, so it sends whole pages (docs/design/switchover.md#strategies-and-the-deadline).
 */
const DELTAS_HELP = 3;

const deltasHelp = ({ residualBytes, residualWholeBytes }: Observation): boolean =>
  residualWholeBytes > DELTAS_HELP * residualBytes;
