/** Commits a fault, and takes it back. */
import { readFileSync } from "node:fs";
import { eventually } from "../support/bounded.ts";
import type { RigHost } from "../support/rig.ts";
import type { FaultRig } from "./fault-rig.ts";
import type { Fault, Victim } from "./faults.ts";

const DIES_WITHIN_MS = 5000;

/** @returns what ends the fault: mends the link, continues or restarts the victim */
export async function inject(on: FaultRig, fault: Fault, from: RigHost): Promise<() => Promise<void>> {
  const { network } = on.rig;
  switch (fault.kind) {
    case "kill":
      return await kill(on, fault.victim, from);
    case "stop": {
      const pid = requirePid(on, fault.victim, from);
      process.kill(pid, "SIGSTOP");
      return async () => {
        signalIfThere(pid, "SIGCONT");
      };
    }
    case "cut":
      await network.setConnected(false);
      return () => network.setConnected(true);
    case "reverse": {
      const end = on.rig.other(from).name;
      await network.setSending(end, false);
      return () => network.setSending(end, true);
    }
  }
}

/** An agent is started again, as systemd would; a QEMU is not. */
async function kill(on: FaultRig, victim: Victim, from: RigHost): Promise<() => Promise<void>> {
  const host = victim.startsWith("source") ? from : on.rig.other(from);
  const pid = requirePid(on, victim, from);
  process.kill(pid, "SIGKILL");
  const gone = (): true | undefined => (signalIfThere(pid, 0) ? undefined : true);
  await eventually(gone, { timeoutMs: DIES_WITHIN_MS, what: `the end of the ${victim}` });
  if (victim.endsWith("QEMU")) return async () => undefined;
  const kind = victim === "source agent" ? "source" : "destination";
  await on.agent(host, kind).ended;
  return () => on.restartAgent(host, kind);
}

function requirePid(on: FaultRig, victim: Victim, from: RigHost): number {
  const pid = on.victimPid(victim, from);
  if (pid === undefined) throw new Error(`There is no ${victim} at this moment`);
  return pid;
}

/** @returns whether the process is there; one that ended and was not waited for is not */
function signalIfThere(pid: number, signal: NodeJS.Signals | 0): boolean {
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
