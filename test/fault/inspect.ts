/** Checks what must hold after a fault, whatever it was, and tells each breach in words. */
import { leftFiles, leftInGuestDirectory, logFiles, processesOf, stateFiles } from "../support/after-migration.ts";
import { eventually } from "../support/bounded.ts";
import { guestFiles } from "../support/guest.ts";
import type { RigHost } from "../support/rig.ts";
import type { FaultRig } from "./fault-rig.ts";

/**
 * How long the hosts may take until they are in order, milliseconds. Agents that lost each other tidy up after their
 * limits have passed, and a source tells that it keeps the guest every half minute at last.
 */
const TIDY_MS = 40_000;
const BEATS = 5;
const BEATS_MS = 15_000;

/** What an inspection needs to know of the two hosts and their guest. */
export type Inspected = Pick<FaultRig, "rig" | "name" | "watch" | "beats" | "corruptions" | "deadAgents" | "isDown">;

export interface Findings {
  /** Where the one guest runs; undefined when there is none, or more than one. */
  readonly at: RigHost | undefined;
  /** What does not hold, in words. */
  readonly violations: readonly string[];
}

export interface InspectOptions {
  readonly tidyMs?: number;
  /** True when somebody other than the agents has started a second copy. */
  readonly mayBeDoubled?: boolean;
  /**
   * True when the operator has gone back to the copy of the switchover: the guest has then lived some moments twice,
   * one time after the other.
   */
  readonly isRolledBack?: boolean;
}

/** Waits for at most `tidyMs` until all is in order. @returns where the guest runs, and what does not hold */
export async function inspect(on: Inspected, options: InspectOptions = {}): Promise<Findings> {
  const { tidyMs = TIDY_MS, mayBeDoubled = false, isRolledBack = false } = options;
  // the findings of the last look count, since one more look could come in the middle of a journal's next write
  let seen: readonly string[] = [];
  const tidy = async (): Promise<true | undefined> => {
    seen = await disorder(on);
    return seen.length === 0 ? true : undefined;
  };
  await eventually(tidy, { timeoutMs: tidyMs, everyMs: 50, what: "order" }).catch(() => undefined);
  const doubled = mayBeDoubled ? [] : on.watch.doubled();
  const twice = mayBeDoubled || isRolledBack ? [] : beatenTwice(on);
  const violations = [...seen, ...on.deadAgents(), ...doubled, ...twice, ...corrupted(on)];
  const running = await hostsWhereItRuns(on);
  const at = running.length === 1 ? running[0] : undefined;
  if (at !== undefined)
    await on.rig
      .serial(at, on.name)
      .waitForBeats(BEATS, { timeoutMs: BEATS_MS })
      .then(({ errors }) => errors > 0 && violations.push(`the guest found ${errors} words of its memory wrong`))
      .catch(() => violations.push(`the guest does not beat on ${at.name}`));
  return { at, violations };
}

/** The hosts on which the guest's QEMU says that it runs the guest. */
export async function hostsWhereItRuns(on: Inspected): Promise<RigHost[]> {
  const hosts = [on.rig.a, on.rig.b];
  const statuses = await Promise.all(hosts.map((host) => on.watch.status(host)));
  return hosts.filter((_, index) => statuses[index] === "running");
}

/**
 * Tells what is not in order. In order is one QEMU that runs, without any other trace, or no QEMU and no trace at all.
 */
async function disorder(on: Inspected): Promise<string[]> {
  const hosts = [on.rig.a, on.rig.b];
  const found: string[] = [];
  const files = guestFiles(on.name);
  const qemus = hosts.map((host) => processesOf(on.rig, host, on.name).length);
  if (qemus[0]! + qemus[1]! > 1) found.push(`QEMUs are left: ${qemus[0]} on a, ${qemus[1]} on b`);
  for (const [index, host] of hosts.entries()) {
    const status = qemus[index] === 0 ? undefined : await on.watch.status(host);
    if (qemus[index] !== 0 && status !== "running") found.push(`the QEMU on ${host.name} is ${status ?? "mute"}`);
    // the first QEMU of a life has no log: the rig has started it and takes its output
    const living = qemus[index] === 0 ? [] : [files.qmp, ...logFiles(on.name)];
    // files of a host that is off are removed when its agents start again
    if (on.isDown(host)) continue;
    // the observer's socket is the rig's own: an agent that has to kill a QEMU does not know of it
    const left = leftFiles(host, [files.serial, files.observer, ...living, ...operatorSockets(on)]);
    if (left.length > 0) found.push(`left in the runtime directory of ${host.name}: ${left.join(", ")}`);
    const own = on.rig.hasUnits ? leftInGuestDirectory(host, on.name, [files.observer, ...living]) : [];
    if (own.length > 0) found.push(`left in the directory of the guest on ${host.name}: ${own.join(", ")}`);
    const odd = stateFiles(host).filter((file) => !/^(source|destination)\/\w+\.json$/.test(file));
    if (odd.length > 0) found.push(`left in the state directory of ${host.name}: ${odd.join(", ")}`);
  }
  return found;
}

/** The operators' sockets, where agents have them in the runtime directory. */
const operatorSockets = ({ rig }: Inspected): readonly string[] =>
  rig.hasUnits ? ["source.sock", "destination.sock"] : [];

/**
 * Finds heartbeats that were seen on both hosts. A guest counts its heartbeats, so two guests have beaten such a
 * number.
 */
function beatenTwice(on: Inspected): string[] {
  const here = new Set(on.beats(on.rig.a).map(({ beat }) => beat));
  const twice = on.beats(on.rig.b).filter(({ beat }) => here.has(beat));
  const first = twice[0];
  return first === undefined ? [] : [`${twice.length} heartbeats on both hosts, the first is number ${first.beat}`];
}

function corrupted(on: Inspected): string[] {
  return [on.rig.a, on.rig.b].flatMap((host) => {
    const lines = on.corruptions(host);
    return lines.length === 0 ? [] : [`on ${host.name} the guest said: ${lines.slice(-3).join(" | ")}`];
  });
}
