/** What a test's process has in use, with an agent in it, when nothing is left to be collected. */
import { setTimeout as delay } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { Test } from "tap";

/**
 * What hundreds of migrations may leave behind, bytes: views and records that are kept for operators, compiled code,
 * and the page memory of the last migration, which an agent keeps for a while (shared/runtime/return-memory.ts).
 * Measured: 8 to 51 MiB.
 */
const LEFT_MAX = 96 << 20;

const LEFT_WITHIN_MS = 30_000;
const LOOK_MS = 250;

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
 * What was said to the agent since leaves next to nothing. The last migrations are given time: their calls and streams
 * refer to them for a moment longer than operators see them under way.
 */
export async function checkMemory(t: Test, before: InUse): Promise<void> {
  const end = performance.now() + LEFT_WITHIN_MS;
  let grown = memoryInUse().bytes - before.bytes;
  while (grown >= LEFT_MAX && performance.now() < end) {
    await delay(LOOK_MS);
    grown = memoryInUse().bytes - before.bytes;
  }
  t.ok(grown < LEFT_MAX, `${grown >> 20} MiB more are in use than before`);
}
