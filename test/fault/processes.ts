/** Ends processes, and finds out when they have ended. */
import { readFileSync } from "node:fs";
import { identify } from "../../shared/runtime/host/process-identity.ts";
import { eventually } from "../support/bounded.ts";

const DIES_WITHIN_MS = 20_000;

/**
 * Kills processes all at once, as a power cut does, and resolves when none is left. A process that has ended already is
 * no mistake.
 */
export async function killAll(pids: readonly number[]): Promise<void> {
  for (const pid of pids) signalIfThere(pid, "SIGKILL");
  await untilGone(pids);
}

/** Waits until all of these processes have ended. @throws Error when one of them does not end */
export async function untilGone(pids: readonly number[]): Promise<void> {
  // this is how the agents look: a zombie with threads left is still there, since a thread may be writing to the
  // guest's disk
  const gone = async (): Promise<true | undefined> =>
    (await Promise.all(pids.map((pid) => identify(pid)))).every((one) => one === undefined) ? true : undefined;
  await eventually(gone, { timeoutMs: DIES_WITHIN_MS, what: `the end of ${pids.join(", ")}` });
}

/**
 * Sends a signal to a process, if it is there. @returns false for a process that has ended, also where it was not
 * waited for
 */
export function signalIfThere(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(pid, signal);
    return !isZombie(pid);
  } catch {
    return false;
  }
}

/**
 * True for a process that has ended and was not waited for. The agent that started a QEMU may be gone, and the process
 * that inherits the QEMU may wait for none.
 */
function isZombie(pid: number): boolean {
  try {
    return / Z /.test(readFileSync(`/proc/${pid}/stat`, "latin1").replace(/^.*\)/, ""));
  } catch {
    return true;
  }
}
