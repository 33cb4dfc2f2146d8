/**
 * Writes lines to the log about callers that were refused. Each refusal has a line while refusals are few. Any program
 * that can connect can cause such lines, so each network has a budget of its own. Networks beyond the first few share
 * one budget.
 */
import { defined } from "../../defined.ts";
import type { MigrationFault } from "../../fault.ts";
import { type Clock, systemClock } from "../../runtime/clock.ts";
import { Budgets } from "../../runtime/log/line-budget.ts";
import { budgeted, type Logger } from "../../runtime/log/log.ts";
import { networkOf } from "./connection-room.ts";

/** 5 lines a minute for each of 11 networks, and 5 for all others together: at most 60 lines a minute. */
const SHARES = { perKind: 5, causesMax: 11 };

export class RefusalLog {
  private readonly log: Logger | undefined;
  private readonly budgets: Budgets;

  constructor(log: Logger | undefined, clock: Clock = systemClock) {
    this.log = log;
    this.budgets = new Budgets(SHARES, clock);
  }

  /** @param peer the caller's address @param path the method that was called */
  add(fault: MigrationFault, peer: string, path?: string): void {
    if (this.log === undefined) return;
    const log = budgeted(this.log, this.budgets.for(networkOf(peer.replace(/:\d+$/, ""))));
    log.warn({ peer, ...defined({ call: path }), code: fault.code, fault }, "caller refused");
  }
}
