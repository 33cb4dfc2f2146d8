/** Processes that a fault ends, and how they are seen to have ended. */
import { readFileSync } from "node:fs";
import { identify } from "../../shared/runtime/host/process-identity.ts";
import { eventually } from "../support/bounded.ts";

const DIES_WITHIN_MS = 20_000;

/** All at once, as a power cut ends them; resolves when none is left. Those that have ended already are no mistake. */
export async function killAll(pids: readonly number[]): Promise<void> {
  for (const pid of pids) signalIfThere(pid, "SIGKILL");
  await untilGone(pids);
}

/** @throws Error when one of them does not end */
export async function untilGone(pids: readonly number[]): Promise<void> {
  // as the agents look: a zombie with threads left is still there, since one of them may be writing to the guest's disk
  const gone = async (): Promise<true | undefined> =>
    (await Promise.all(pids.map((pid) => identify(pid)))).every((one) => one === undefined) ? true : undefined;
  await eventually(gone, { timeoutMs: DIES_WITHIN_MS, what: `the end of ${pids.join(", ")}` });
}

/** @returns whether the process is there; one that ended and was not waited for is not */
export function signalIfThere(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(pid, signal);
    return !isZombie(pid);
  } catch {
    return false;
  }
}

/** The agent that started a QEMU may be gone, and whoever inherits it may wait for nobody. */
function isZombie(pid: number): boolean {
  try {
    return / Z /.test(readFileSync(`/proc/${pid}/stat`, "latin1").replace(/^.*\)/, ""));
  } catch {
    return true;
  }
}
