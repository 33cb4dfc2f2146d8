/** One cell of the matrix: a migration, a fault at a moment of it, and what it may cost. */
import type { Strategy } from "../../shared/protocol/messages.ts";
import type { AgentFlags } from "./fault-agents.ts";
import type { Fault, Moment } from "./faults.ts";

/** `short`: what is for good, or hangs, is given up soon. `patient`: a cut of 5 s while copying is not. */
export type Limits = "default" | "patient" | "short";

/** link.finalGiveUpAfter in all cells but those with the defaults. */
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
  /** The guest runs at the destination and its pages have ended with the source's QEMU: whoever operates it ends it. */
  readonly strands?: boolean;
  /**
   * The fault ends the only copy of the guest: none may be left. "if no whole copy was left": as was found behind the
   * fault, which is the promise that nothing whole is thrown away.
   */
  readonly mayLose: boolean | "if no whole copy was left";
  /** The destination cannot say any more what became of the grant: `ferry resolve` may be needed. */
  readonly mayDoubt: boolean;
  /** No other end will do. */
  readonly mustMove?: boolean;
  /**
   * Somebody other than the agents starts a second copy: it must be shown by an agent, and ended as the documents say.
   */
  readonly mayDouble?: boolean | "must";
  /** Whatever starts guests on both hosts once their QEMU has ended, with or without `ferry may-start`. */
  readonly supervisor?: "asks" | "blind";
  /** The guest may not stand still for longer, whatever becomes of the migration. */
  readonly longestPauseMs?: number;
}

/** `missed`: the victim was gone when the fault was to be done to it. */
export type Outcome = "moved" | "kept" | "resolved, moved" | "resolved, kept" | "lost" | "missed" | "broken";

export interface CellResult {
  readonly cell: Cell;
  readonly outcome: Outcome;
  readonly seconds: number;
  /** Between two heartbeats as they were seen, from the command to the end of the first attempt. */
  readonly longestPauseMs: number;
  /** By the agents, when the guest was moved and the agent that moved it is still there. */
  readonly downtimeMs: number | undefined;
  readonly violations: readonly string[];
  /** The migration had ended before the moment of the fault. */
  readonly missedItsMoment?: boolean;
}
