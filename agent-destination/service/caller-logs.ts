/**
 * Makes the loggers for what callers cause. Each caller has one budget of log lines, however many migrations it begins,
 * so that no caller fills the disk or hides the lines of others.
 */
import { type Clock, systemClock } from "../../shared/runtime/clock.ts";
import { Budgets } from "../../shared/runtime/log/line-budget.ts";
import { budgeted, type Logger } from "../../shared/runtime/log/log.ts";

/**
 * How many lines of one kind a caller may cause in a minute; further lines are only counted
 * (shared/runtime/log/line-budget.ts). A migration writes some 15 lines of a kind at most, and a host that is emptied
 * may move 64 guests in one minute.
 */
const LINES_OF_A_KIND = 1000;
/** How many callers have a budget of their own at the same time; all further callers share one budget. */
const CALLERS_MAX = 64;

/** Makes a logger for each caller. */
export class CallerLogs {
  private readonly log: Logger;
  private readonly budgets: Budgets;

  constructor(log: Logger, clock: Clock = systemClock) {
    this.log = log;
    this.budgets = new Budgets({ perKind: LINES_OF_A_KIND, causesMax: CALLERS_MAX }, clock);
  }

  /**
   * Gives the logger of a caller.
   * @param caller its name, or the address of its agent. The port number in an address is left out, since the
   *   connections of one caller come from many ports
   */
  for(caller: string): Logger {
    return budgeted(this.log, this.budgets.for(caller.replace(/:\d+(?=,|$)/, "")));
  }
}
