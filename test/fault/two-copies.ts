/**
 * Checks that an agent in contact shows two copies of a guest, which somebody other than the agents has made, wherever
 * an operator may look.
 */
import { eventually } from "../support/bounded.ts";
import type { Attempt } from "./attempt.ts";
import type { FaultRig } from "./fault-rig.ts";
import type { AgentKind } from "./faults.ts";

/**
 * How long an agent may take to show two copies, milliseconds. A source that has ended its own part tells the
 * destination so every 30 s at least (agent-source/migration/ask-destination.ts), and then hears that the guest runs
 * there too.
 */
const SHOUTS_WITHIN_MS = 40_000;
const TWO_COPIES_EXIT = 5;
const KINDS = ["source", "destination"] as const;

/**
 * Waits until an agent shows two copies.
 * @returns the agent that shows them first; undefined when two copies do not run, or have ended before an agent saw
 * them
 */
export async function whoShouts(on: FaultRig, attempt: Attempt): Promise<AgentKind | undefined> {
  const seen = async (): Promise<AgentKind | "nobody" | undefined> => {
    for (const kind of KINDS) {
      const view = await attempt.view(kind);
      if (typeof view === "object" && view.status === "doubled") return kind;
    }
    return on.watch.areTwoNow() ? undefined : "nobody";
  };
  const who = await eventually(seen, {
    timeoutMs: SHOUTS_WITHIN_MS,
    everyMs: 100,
    what: "an agent to show two copies",
  });
  return who === "nobody" ? undefined : who;
}

/** Checks how `ferry list` shows two copies. @returns what is wrong, in words */
export async function checkShout(attempt: Attempt, kind: AgentKind): Promise<readonly string[]> {
  const host = kind === "source" ? attempt.from : attempt.to;
  const { code, output } = await attempt.say(host, kind, ["list"]);
  const found: string[] = [];
  if (code !== TWO_COPIES_EXIT) found.push(`two copies run, and ferry list ended with ${code}`);
  if (!/"two-copies"/.test(output)) found.push(`ferry list does not say two-copies: ${output.slice(-300)}`);
  return found;
}
