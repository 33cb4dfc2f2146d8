/**
 * Bounds how many lines of a log somebody outside can cause: for each cause (a caller, a migration), a number of lines
 * a minute of each kind. The kind of a line is its text. Lines beyond that are left out and counted, and a line tells
 * their number when the minute is over. So no cause can fill a disk, or hide the lines of another cause behind its own.
 */
import { type Clock, systemClock } from "../clock.ts";

/** The time that a budget is for, milliseconds. */
const WITHIN_MS = 60_000;
/**
 * The most kinds of lines of one cause that are counted apart; all further kinds count as one. The limit is needed
 * because the texts of faults, unlike all other texts, are not constants of this program.
 */
const KINDS_MAX = 64;
const OTHER_KINDS = "lines of other kinds";

interface Kind {
  sinceMs: number;
  written: number;
  leftOut: number;
}

/** The budget of one cause. */
export class LineBudget {
  private readonly perKind: number;
  private readonly kinds = new Map<string, Kind>();
  private readonly clock: Clock;
  private lastMs: number;

  /** @param perKind lines a minute of each kind */
  constructor(perKind: number, clock: Clock = systemClock) {
    this.perKind = perKind;
    this.clock = clock;
    this.lastMs = clock.monotonicMs();
  }

  /** True when take() was not called for a minute, and no number of left-out lines is still to be told. */
  get isIdle(): boolean {
    if (this.clock.monotonicMs() - this.lastMs < WITHIN_MS) return false;
    for (const { leftOut } of this.kinds.values()) if (leftOut > 0) return false;
    return true;
  }

  /**
   * Counts a line.
   * @param tell logs how many lines of a kind were left out; called when the minute is over
   * @returns false for a line that is left out
   */
  take(text: string, tell: (text: string, leftOut: number) => void): boolean {
    const nowMs = this.clock.monotonicMs();
    this.lastMs = nowMs;
    const name = this.kinds.has(text) || this.kinds.size < KINDS_MAX ? text : OTHER_KINDS;
    const kind = this.kinds.get(name) ?? { sinceMs: nowMs, written: 0, leftOut: 0 };
    this.kinds.set(name, kind);
    if (kind.leftOut === 0 && nowMs - kind.sinceMs >= WITHIN_MS) Object.assign(kind, { sinceMs: nowMs, written: 0 });
    if (kind.written < this.perKind) {
      kind.written++;
      return true;
    }
    if (kind.leftOut++ > 0) return false;
    const over = (): void => {
      const { leftOut } = kind;
      Object.assign(kind, { sinceMs: this.clock.monotonicMs(), written: 0, leftOut: 0 });
      tell(name, leftOut);
    };
    this.clock.after(Math.max(0, kind.sinceMs + WITHIN_MS - nowMs), over).unref();
    return false;
  }
}

/** The budgets of causes that are known by a name. At most `causesMax` causes have their own; all others share one. */
export class Budgets {
  private readonly perKind: number;
  private readonly causesMax: number;
  private readonly clock: Clock;
  private readonly byCause = new Map<string, LineBudget>();
  private readonly others: LineBudget;

  constructor(
    { perKind, causesMax }: { readonly perKind: number; readonly causesMax: number },
    clock: Clock = systemClock,
  ) {
    this.perKind = perKind;
    this.causesMax = causesMax;
    this.clock = clock;
    this.others = new LineBudget(perKind, clock);
  }

  /**
   * Finds or makes the budget of a cause. If causesMax causes have a budget already, idle budgets are dropped first. If
   * there is still no room, the cause gets the one budget that all further causes share.
   */
  for(cause: string): LineBudget {
    const known = this.byCause.get(cause);
    if (known !== undefined) return known;
    if (this.byCause.size >= this.causesMax)
      for (const [name, budget] of this.byCause) if (budget.isIdle) this.byCause.delete(name);
    if (this.byCause.size >= this.causesMax) return this.others;
    const made = new LineBudget(this.perKind, this.clock);
    this.byCause.set(cause, made);
    return made;
  }
}
