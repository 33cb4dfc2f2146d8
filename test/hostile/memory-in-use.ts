/** Measures what a test's process, with an agent in it, has in use when nothing is left to be collected. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { Test } from "tap";
import { eventually } from "../support/bounded.ts";

/**
 * What hundreds of migrations may leave behind, bytes: views and records that are kept for operators, compiled code,
 * and the page memory of the last migration, which an agent keeps for a while (shared/runtime/v8/return-memory.ts).
 * Measured: 8 to 51 MiB.
 */
const LEFT_MAX = 96 << 20;

const LEFT = { timeoutMs: 30_000, everyMs: 250, what: "the end of what migrations have left" };

export interface InUse {
  /** Bytes of objects, and of buffers outside of the heap. */
  readonly bytes: number;
}

export function memoryInUse(): InUse {
  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return { bytes: heapUsed + external };
}

/**
 * Checks that what was said to the agent since `before` has left next to nothing in use. The last migrations are given
 * time: their calls and streams refer to them for a moment longer than operators see them under way.
 */
export async function checkMemory(t: Test, before: InUse): Promise<void> {
  const grownBytes = (): number => memoryInUse().bytes - before.bytes;
  let grown = 0;
  const isLittle = (): true | undefined => {
    grown = grownBytes();
    return grown < LEFT_MAX || undefined;
  };
  await eventually(isLittle, LEFT).catch(() => undefined);
  t.ok(grown < LEFT_MAX, `${grown >> 20} MiB more are in use than before`);
}
