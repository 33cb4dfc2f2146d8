/**
 * Lines about callers that were refused: each, while they are few. Anybody who can connect can cause them, so each
 * network has a budget of its own, and those beyond the first few share one.
 */
import type { MigrationFault } from "../../fault.ts";
import { Budgets } from "../../runtime/log/line-budget.ts";
import { budgeted, type Logger } from "../../runtime/log/log.ts";
import { networkOf } from "./connection-room.ts";

/** At most 60 lines a minute of all together. */
const SHARES = { perKind: 5, causesMax: 11 };

export class RefusalLog {
  private readonly log: Logger | undefined;
  private readonly budgets = new Budgets(SHARES);

  constructor(log: Logger | undefined) {
    this.log = log;
  }

  /** @param peer its address; @param path of the method that was called */
  add(fault: MigrationFault, peer: string, path?: string): void {
    if (this.log === undefined) return;
    const log = budgeted(this.log, this.budgets.for(networkOf(peer.replace(/:\d+$/, ""))));
    log.warn({ peer, ...(path === undefined ? {} : { call: path }), code: fault.code, fault }, "caller refused");
  }
}
