/** Commits a fault, and takes it back. */
import { eventually } from "../support/bounded.ts";
import type { RigHost } from "../support/rig.ts";
import type { FaultRig } from "./fault-rig.ts";
import {
  type AgentKind,
  ENDS_QEMU,
  type Fault,
  type Hold,
  type OutsiderCommand,
  partsOf,
  type Victim,
} from "./faults.ts";
import { killAll, signalIfThere, untilGone } from "./processes.ts";
import { startSecondAgent } from "./second-agent.ts";

/** How long to wait for a keeper, milliseconds: its agent may have been told to begin just now. */
const KEEPS_WITHIN_MS = 5000;

/**
 * A fault that was committed. Its end() mends the link, continues or restarts the victim, or makes room on the disk.
 */
export interface Committed {
  readonly fault: Fault;
  /** @param holds where agents hold that are started again */
  end(holds?: readonly Hold[]): Promise<void>;
}

/** Commits all parts of a fault, one after the other. @throws Error when a victim is not there */
export async function inject(on: FaultRig, fault: Fault, from: RigHost): Promise<readonly Committed[]> {
  const committed: Committed[] = [];
  try {
    for (const part of partsOf(fault)) committed.push({ fault: part, end: await commit(on, part, from) });
    return committed;
  } catch (thrown) {
    for (const { end } of committed.reverse()) await end();
    throw thrown;
  }
}

/** The host of a side, in a migration that goes away from `from`. */
export const hostOf = (on: FaultRig, side: AgentKind, from: RigHost): RigHost =>
  side === "source" ? from : on.rig.other(from);

async function commit(on: FaultRig, fault: Fault, from: RigHost): Promise<Committed["end"]> {
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
    case "host": {
      const host = hostOf(on, fault.side, from);
      await on.killHost(host);
      return (holds) => on.switchOn(host, holds);
    }
    case "keeper":
      await killKeeper(on, on.rig.other(from));
      return nothing;
    case "second agent":
      await startSecondAgent(on, hostOf(on, fault.side, from), fault.side);
      return nothing;
    case "disk": {
      const disk = on.disk(hostOf(on, fault.side, from));
      if (fault.how === "full") disk.fill();
      else await disk.freeze();
      return () => disk.mend();
    }
    case "outsider":
      await sayOutside(on, hostOf(on, fault.side, from), fault.command);
      return nothing;
    case "words":
    case "all":
      throw new TypeError(`${fault.kind} is not committed here`);
  }
}

const nothing = async (): Promise<void> => undefined;

/**
 * Says a command to a QEMU as somebody other than the agents, and waits for the end of a QEMU that ends by it. QEMU
 * answers before it has ended, and until then its copy must not be taken for one that is left.
 */
async function sayOutside(on: FaultRig, host: RigHost, command: OutsiderCommand): Promise<void> {
  const before = on.qemusOn(host);
  await on.watch.say(host, command);
  if (ENDS_QEMU.includes(command)) await untilGone(before).catch(() => undefined);
}

/** Kills an agent or a QEMU. The end of this fault starts an agent again, as systemd would, but not a QEMU. */
async function kill(on: FaultRig, victim: Victim, from: RigHost): Promise<Committed["end"]> {
  const host = hostOf(on, victim.startsWith("source") ? "source" : "destination", from);
  await killAll([requirePid(on, victim, from)]);
  if (victim.endsWith("QEMU")) return nothing;
  const kind = victim === "source agent" ? "source" : "destination";
  await on.agent(host, kind).ended;
  return (holds = []) => {
    const own = holds.filter(({ side }) => side === kind);
    return on.restartAgent(
      host,
      kind,
      own.map(({ state }) => state),
    );
  };
}

async function killKeeper(on: FaultRig, host: RigHost): Promise<void> {
  const there = (): readonly number[] | undefined => {
    const keepers = on.keepersOn(host);
    return keepers.length === 0 ? undefined : keepers;
  };
  await killAll(await eventually(there, { timeoutMs: KEEPS_WITHIN_MS, what: "a keeper of the monitor" }));
}

function requirePid(on: FaultRig, victim: Victim, from: RigHost): number {
  const pid = on.victimPid(victim, from);
  if (pid === undefined) throw new Error(`There is no ${victim} at this moment`);
  return pid;
}
