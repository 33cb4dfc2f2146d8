/** What the tests of the switch policy decide on: a plan, a copy that is nearly done, and one that is far from it. */
import type { Observation } from "../../agent-source/switchover/observation.ts";
import type { SwitchPolicy } from "../../agent-source/switchover/switch-policy.ts";

export const plan = { strategy: "precopy", downtimeTargetMs: 300, deadlineMs: 0, onDeadline: "cancel" } as const;
/** What is left takes some milliseconds. */
export const quiet: Observation = {
  elapsedMs: 1000,
  begun: true,
  firstPassDone: true,
  sweptPages: 10,
  residualPages: 100,
  residualBytes: 5000,
  residualWholeBytes: 5000,
  sentPages: 0,
  backlogged: false,
  bytesPerPage: 50,
  resendCostIsMeasured: true,
  inFlightBytes: 0,
  inFlightZeroPages: 0,
  bytesPerSecond: 125e6,
  roundTripMs: 1,
  microsPerPage: 10,
  drained: true,
  linkIsDown: false,
  paused: false,
};
/** What is left takes half a second. */
export const busy: Observation = {
  ...quiet,
  sweptPages: 20_000,
  residualPages: 30_000,
  residualBytes: 60e6,
  backlogged: true,
};

/** Says in few words how the policy has decided. */
export function told(policy: SwitchPolicy, seen: Observation): string {
  const decision = policy.decide(seen);
  return decision.kind === "switch" ? `switch into ${decision.into}: ${decision.reason}` : decision.kind;
}
