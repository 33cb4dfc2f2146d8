/** The memory that docs/operations.md ("Memory") promises for each agent, and what an agent really took. */
import { readFileSync } from "node:fs";
import type { RigProcess } from "./process.ts";

/**
 * What an agent may take beside its settings while one migration runs, MiB: the program itself, Node, the code that
 * Node has compiled, what is kept of the warm-up, and the compression thread that waits
 * (docs/design/memory-and-v8.md).
 */
export const BESIDE_SETTINGS_MIB = { source: 208, destination: 144 } as const;

/** What an agent with the default settings may take while one migration runs, MiB. */
export const PROMISED_MIB = {
  // memory.arena and memory.baseCache
  source: 64 + 256 + BESIDE_SETTINGS_MIB.source,
  // receive.window
  destination: 16 + BESIDE_SETTINGS_MIB.destination,
} as const;

/** The most memory of the process that was ever resident, MiB, as the kernel counts it. */
export function peakMebibytes({ pid }: RigProcess): number {
  const peak = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(peak) / 1024;
}
