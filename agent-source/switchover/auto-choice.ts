/**
 * Judges a copy that goes on as precopy: whether it has an end, and whether post-copy would bring the guest over sooner
 * (docs/design/switchover.md#auto). With `auto` the switch policy acts on this judgement where both hosts can do
 * post-copy; everywhere else the operator is told. The judgement rests on what the migration itself has measured
 * (eta.ts), and so needs no plan. Pure: times are passed in, milliseconds.
 *
 * Post-copy cannot be undone, and it makes the guest need both hosts. So a judgement counts only when every judgement
 * has spoken for post-copy for some time, and only when post-copy is better by a margin.
 */
import { megabytes, WORTH } from "../../shared/model/recommend.ts";
import type { DeadlineAction } from "../../shared/protocol/messages.ts";

/** The forecast of a copy that runs: how long it takes from now on as precopy, and as post-copy. */
export interface Prospects {
  /** The time until the guest runs at the destination if precopy goes on, seconds; undefined where it has no end. */
  readonly precopySeconds: number | undefined;
  /** The time until the guest has all of its pages at the destination if post-copy began now, seconds. */
  readonly postcopySeconds: number;
  /** Memory that the guest dirties in a second, each page counted once, bytes. */
  readonly dirtiedBytesPerSecond: number;
  /** What that memory is on the link, as deltas and compressed, bytes. */
  readonly encodedBytesPerSecond: number;
  /** Encoded bytes that the link carries in a second. */
  readonly linkBytesPerSecond: number;
}

/** What the judgement needs to know of the migration. */
export interface JudgedPlan {
  /** Milliseconds from the beginning of the migration. 0: there is no deadline. */
  readonly deadlineMs: number;
  readonly onDeadline: DeadlineAction;
}

/** What speaks for post-copy, once it counts. */
export interface Judgement {
  /** True where precopy does not end. */
  readonly isEndless: boolean;
  /** True where post-copy would end before the deadline, or there is none. */
  readonly meets: boolean;
  /** Says in words, with figures, what precopy does. */
  readonly found: string;
  /** The time that post-copy would take from now, seconds. */
  readonly postcopySeconds: number;
}

/** How long every judgement must have spoken for post-copy until the last one counts, milliseconds. */
const STANDS_MS = 500;
/** How many judgements, one after the other, must have spoken for post-copy until the last one counts. */
const STANDS_TIMES = 3;
/**
 * A deadline speaks for post-copy only if precopy would miss it, and post-copy meet it, by this fraction of the time
 * that is left, since both are estimates.
 */
const DEADLINE_MARGIN = 0.2;
/** Post-copy must be quicker by this, seconds: for less, no guest is made to need both hosts. */
const GAIN_SECONDS = 2;

export class AutoChoice {
  private readonly plan: JudgedPlan;
  private sinceMs = 0;
  private times = 0;
  private judgement: Judgement | undefined;

  constructor(plan: JudgedPlan) {
    this.plan = plan;
  }

  /**
   * Takes how the copy would go on from now.
   * @param prospects undefined while too little is known, or while the link is down; then what was judged before is
   *   forgotten
   * @param elapsedMs the time since the migration began
   */
  foresee(prospects: Prospects | undefined, elapsedMs: number): void {
    const judged = prospects === undefined ? undefined : this.judge(prospects, elapsedMs);
    if (judged === undefined || this.judgement === undefined) {
      this.times = 0;
      this.sinceMs = elapsedMs;
    }
    this.judgement = judged;
    this.times++;
  }

  /**
   * Returns the judgement for post-copy, once it counts: when the last STANDS_TIMES judgements and all of the last
   * STANDS_MS spoke for post-copy.
   * @param elapsedMs the time since the migration began, as in foresee()
   * @returns undefined while nothing speaks for post-copy, or not for long enough
   */
  counts(elapsedMs: number): Judgement | undefined {
    return this.times >= STANDS_TIMES && elapsedMs - this.sinceMs >= STANDS_MS ? this.judgement : undefined;
  }

  private judge(prospects: Prospects, elapsedMs: number): Judgement | undefined {
    const { precopySeconds, postcopySeconds, encodedBytesPerSecond, linkBytesPerSecond } = prospects;
    const { deadlineMs, onDeadline } = this.plan;
    const leftSeconds = deadlineMs === 0 ? Number.POSITIVE_INFINITY : Math.max(0, deadlineMs - elapsedMs) / 1000;
    const meets = postcopySeconds < (1 - DEADLINE_MARGIN) * leftSeconds;
    const dirtied = `the guest dirties ${megabytes(prospects.dirtiedBytesPerSecond)} MB/s`;
    if (precopySeconds === undefined) {
      const carried = `${megabytes(encodedBytesPerSecond)} MB/s encoded, and the link carries ${megabytes(linkBytesPerSecond)} MB/s`;
      return { isEndless: true, meets, found: `precopy has no end in sight: ${dirtied}, ${carried}`, postcopySeconds };
    }
    // an operator who has the switchover forced at the deadline has decided what is to happen then
    const isLate = onDeadline !== "force" && precopySeconds > (1 + DEADLINE_MARGIN) * leftSeconds && meets;
    const isSlow = precopySeconds > WORTH * postcopySeconds && precopySeconds - postcopySeconds > GAIN_SECONDS;
    if (!isLate && !isSlow) return undefined;
    const late = isLate ? ", longer than the deadline allows" : "";
    const found = `${dirtied}, and precopy would take another ${precopySeconds.toFixed(1)} s${late}`;
    return { isEndless: false, meets, found, postcopySeconds };
  }
}
