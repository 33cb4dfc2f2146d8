/**
 * Measures what the QEMUs and agents of a rig cost while a guest moves: their CPU time, and the agents' peak memory.
 */
import { readFileSync, writeFileSync } from "node:fs";
import type { Rig } from "../../support/rig.ts";
import type { FoundProcess } from "../../support/running-processes.ts";

export type Role = "source QEMU" | "destination QEMU" | "source agent" | "destination agent";

export interface Cost {
  /** User and system time with all threads. A QEMU's time includes its guest's. */
  readonly cpuSeconds: Readonly<Record<Role, number>>;
  /** The agents' VmHWM since the beginning of the watch. */
  readonly peakBytes: Readonly<Record<"source agent" | "destination agent", number>>;
}

/** How often the CPU times of known processes are read, milliseconds. */
const EVERY_MS = 25;
/**
 * How often new processes, such as the destination's QEMU, are looked for, milliseconds. It is less often, since
 * reading all of /proc takes some milliseconds.
 */
const FIND_EVERY_MS = 250;
/** Clock ticks a second: sysconf(_SC_CLK_TCK), which is 100 on every Linux. */
const TICKS = 100;

interface Watched {
  readonly pid: number;
  readonly role: Role;
  /** CPU seconds at the beginning of the watch; 0 for a process that began later. */
  readonly before: number;
  /** CPU seconds when the process was last seen. */
  now: number;
}

/** Watches from its construction to end(). A process that ends meanwhile counts as it was last seen. */
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

/**
 * The role of a process in this migration. Each host has both agents: the source agent counts at the host that the
 * guest leaves, and the destination agent at the other host.
 */
function roleOf({ command }: FoundProcess, rig: Rig, from: "a" | "b"): Role | undefined {
  const here = command.includes(rig[from].runtimeDirectory);
  if (/^\S*qemu-system-/.test(command)) return here ? "source QEMU" : "destination QEMU";
  if (/agent-source\/main\.js/.test(command)) return here ? "source agent" : undefined;
  if (/agent-destination\/main\.js/.test(command)) return here ? undefined : "destination agent";
  return undefined;
}

function cpuOf(pid: number): number | undefined {
  try {
    // the fields come after the program's name, which may have anything in it
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

/** Resets the peak of a process, so that it is the peak of this migration. */
function forgetPeak(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/clear_refs`, "5");
  } catch {
    // a kernel that cannot reset it: the peak is that of the agent's life
  }
}
