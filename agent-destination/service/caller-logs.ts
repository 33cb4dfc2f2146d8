/** The log of what callers cause: each has a budget of its own, whatever number of migrations it begins. */
import { Budgets } from "../../shared/runtime/log/line-budget.ts";
import { budgeted, type Logger } from "../../shared/runtime/log/log.ts";

/**
 * In a minute. A migration writes some 15 lines of a kind at most, and a host that is emptied may move 64 guests in
 * one.
 */
const LINES_OF_A_KIND = 1000;
const CALLERS_MAX = 64;

export class CallerLogs {
  private readonly log: Logger;
  private readonly budgets = new Budgets({ perKind: LINES_OF_A_KIND, causesMax: CALLERS_MAX });

  constructor(log: Logger) {
    this.log = log;
  }

  /** @param caller its name and address; the number of its port makes it no other caller */
  for(caller: string): Logger {
    return budgeted(this.log, this.budgets.for(caller.replace(/:\d+(?=,|$)/, "")));
  }
}
