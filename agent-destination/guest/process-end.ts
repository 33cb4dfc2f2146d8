/** Waits for the end of a process that need not be a child of this agent. */
import type { QemuProcess } from "../../shared/protocol/ownership.ts";
import { type Clock, sleepUnref, systemClock } from "../../shared/runtime/clock.ts";
import { hasEnded } from "../../shared/runtime/host/process-identity.ts";

/** How often a process that is no child of this agent is looked at for its end, milliseconds. */
const LOOK_MS = 200;
/**
 * How long the end of a killed process is waited for, milliseconds. The kernel may hold the process for longer (state
 * D).
 */
export const DIES_WITHIN_MS = 10_000;

/** Resolves when a process has ended. The process need not be a child of this agent. */
export async function endOf(process: QemuProcess, clock: Clock = systemClock): Promise<void> {
  // while this host cannot tell, the process is looked at again
  while (!(await hasEnded(process).catch(() => false))) await sleepUnref(clock, LOOK_MS);
}
