/** Counts what this process uses. */
import { returnMemory } from "../../../shared/runtime/v8/return-memory.ts";
import type { Ended, Usage } from "./messages.ts";

/** What this process has used since it was started. */
export function usageNow(): Usage {
  const { userCPUTime, systemCPUTime, minorPageFault } = process.resourceUsage();
  return { user: userCPUTime / 1e6, system: systemCPUTime / 1e6, faults: minorPageFault };
}

const usedSince = (before: Usage): Usage => {
  const now = usageNow();
  return { user: now.user - before.user, system: now.system - before.system, faults: now.faults - before.faults };
};

/** Makes the answer at the end of a migration that began with `before`. */
export async function endedSince(before: Usage, wireBytes: number): Promise<Ended> {
  const usage = usedSince(before);
  const after = usageNow();
  await returnMemory();
  return { kind: "ended", usage, after: usedSince(after), wireBytes };
}
