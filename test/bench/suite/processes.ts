/** What the QEMUs and agents of a rig cost while a guest moves: CPU time by host, and the agents' peak of memory. */
import { readFileSync, writeFileSync } from "node:fs";
import type { Rig } from "../../support/rig.ts";
import type { FoundProcess } from "../../support/running-processes.ts";

export type Role = "source QEMU" | "destination QEMU" | "source agent" | "destination agent";

export interface Cost {
  /** User and system, with all threads; a QEMU's has its guest's in it. */
  readonly cpuSeconds: Readonly<Record<Role, number>>;
  /** VmHWM since the beginning. */
  readonly peakBytes: Readonly<Record<"source agent" | "destination agent", number>>;
}

const EVERY_MS = 25;
/** A destination's QEMU and whoever is new is found so often: reading all of /proc takes some milliseconds. */
const FIND_EVERY_MS = 250;
/** sysconf(_SC_CLK_TCK), 100 on every Linux. */
const TICKS = 100;

interface Watched {
  readonly pid: number;
  readonly role: Role;
  /** 0 of a process that began meanwhile. */
  readonly before: number;
  now: number;
}

/** Begins at once; a process that ends is counted as it was last seen. */
export class CostWatch {
  private readonly rig: Rig;
  private readonly from: "a" | "b";
  private readonly watched = new Map<number, Watched>();
  private readonly timers: readonly NodeJS.Timeout[];

  constructor(rig: Rig, from: "a" | "b") {
    this.rig = rig;
    this.from = from;
    this.find(true);
    for (const { pid, role } of this.watched.values()) if (role.endsWith("agent")) forgetPeak(pid);
    this.timers = [setInterval(() => this.look(), EVERY_MS), setInterval(() => this.find(false), FIND_EVERY_MS)];
  }

  end(): Cost {
    for (const timer of this.timers) clearInterval(timer);
    this.find(false);
    this.look();
    const cpu = (role: Role): number =>
      [...this.watched.values()].filter((one) => one.role === role).reduce((sum, one) => sum + one.now - one.before, 0);
    const peak = (role: Role): number =>
      Math.max(0, ...[...this.watched.values()].filter((one) => one.role === role).map(({ pid }) => peakOf(pid)));
    return {
      cpuSeconds: {
        "source QEMU": cpu("source QEMU"),
        "destination QEMU": cpu("destination QEMU"),
        "source agent": cpu("source agent"),
        "destination agent": cpu("destination agent"),
      },
      peakBytes: { "source agent": peak("source agent"), "destination agent": peak("destination agent") },
    };
  }

  private find(first: boolean): void {
    for (const found of this.rig.processes()) {
      if (this.watched.has(found.pid)) continue;
      const role = roleOf(found, this.rig, this.from);
      if (role === undefined) continue;
      const cpu = cpuOf(found.pid) ?? 0;
      this.watched.set(found.pid, { pid: found.pid, role, before: first ? cpu : 0, now: cpu });
    }
  }

  private look(): void {
    for (const one of this.watched.values()) one.now = cpuOf(one.pid) ?? one.now;
  }
}

/** The agent of a source serves on the host that the guest leaves. */
function roleOf({ command }: FoundProcess, rig: Rig, from: "a" | "b"): Role | undefined {
  const here = command.includes(rig[from].runtimeDirectory);
  if (/^\S*qemu-system-/.test(command)) return here ? "source QEMU" : "destination QEMU";
  if (/agent-source\/main\.js/.test(command)) return here ? "source agent" : undefined;
  if (/agent-destination\/main\.js/.test(command)) return here ? undefined : "destination agent";
  return undefined;
}

function cpuOf(pid: number): number | undefined {
  try {
    // behind the name, which may have anything in it
    const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ").at(-1)?.split(" ") ?? [];
    return (Number(fields[11]) + Number(fields[12])) / TICKS;
  } catch {
    return undefined;
  }
}

function peakOf(pid: number): number {
  try {
    return 1024 * Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** So that the peak is of this migration. */
function forgetPeak(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/clear_refs`, "5");
  } catch {
    // a kernel without it: the peak is that of the agent's life
  }
}
