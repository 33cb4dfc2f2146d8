/** One cell of the matrix: a migration, a fault at a moment of it, and what the fault may cost. */
import type { Strategy } from "../../shared/protocol/messages.ts";
import type { AgentFlags } from "./fault-agents.ts";
import type { Fault, Moment } from "./faults.ts";

/**
 * The limits with which the agents of a cell run. `default`: the agents' own. `short`: what is for good, or hangs, is
 * given up soon. `patient`: as `short`, but a cut of 5 s during the copying is waited for.
 */
export type Limits = "default" | "patient" | "short";

/** `link.finalGiveUpAfter` in all cells except those with the default limits, milliseconds. */
export const FINAL_GIVE_UP_MS = 2000;
export const LIMITS: Readonly<Record<Limits, AgentFlags>> = {
  default: { source: [], destination: [] },
  patient: flags("12s"),
  short: flags("3s"),
};

function flags(giveUpAfter: string): AgentFlags {
  const both = ["--qmp-timeout=4s", "--link-keep-alive=1s", `--link-give-up-after=${giveUpAfter}`];
  const source = [
    `--link-final-give-up-after=${FINAL_GIVE_UP_MS}ms`,
    "--link-doubt-after=3s",
    "--handshake-timeout=6s",
  ];
  return { source: [...both, ...source], destination: [...both, "--follow-up=5s"] };
}

export interface Cell {
  readonly name: string;
  readonly fault: Fault;
  readonly moment: Moment;
  readonly limits: Limits;
  /** @default the agents' own choice */
  readonly strategy?: Strategy;
  /**
   * True when the guest runs at the destination and the pages that it misses have ended with the source's QEMU. An
   * operator then ends what is left of the guest.
   */
  readonly strands?: boolean;
  /**
   * True when the fault ends the only copy of the guest, so that no guest may be left. "if no whole copy was left" is
   * the promise that nothing whole is thrown away: the guest may be lost only if no whole copy was found right after
   * the fault.
   */
  readonly mayLose: boolean | "if no whole copy was left";
  /**
   * True when the destination may not be able to say any more what became of the grant, so that `ferry resolve` may be
   * needed.
   */
  readonly mayDoubt: boolean;
  /** True when the migration must move the guest. */
  readonly mustMove?: boolean;
  /**
   * Set when somebody other than the agents may start a second copy; "must" when that is certain to happen. An agent
   * must show the second copy, and it must be ended as the documents say.
   */
  readonly mayDouble?: boolean | "must";
  /**
   * The supervisor that starts the guest again once its QEMU has ended: "asks" asks `ferry may-start` first, "blind"
   * does not.
   */
  readonly supervisor?: "asks" | "blind";
  /** The longest pause of the guest that is allowed, whatever becomes of the migration, milliseconds. */
  readonly longestPauseMs?: number;
}

/**
 * How a cell has ended. `resolved`: an operator's word was needed. `missed`: the victim was gone when the fault was to
 * be committed.
 */
export type Outcome = "moved" | "kept" | "resolved, moved" | "resolved, kept" | "lost" | "missed" | "broken";

export interface CellResult {
  readonly cell: Cell;
  readonly outcome: Outcome;
  readonly seconds: number;
  /** The longest time between two heartbeats as they were seen, from the command to the end of the first attempt. */
  readonly longestPauseMs: number;
  /**
   * The downtime that the agents report; undefined when the guest was not moved, or the agent that moved it is gone.
   */
  readonly downtimeMs: number | undefined;
  /** What did not hold, in words; empty when everything did. */
  readonly violations: readonly string[];
  /** True when the migration had ended before the moment of the fault. */
  readonly missedItsMoment?: boolean;
}
