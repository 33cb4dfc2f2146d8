/** One thread of zstd-pool.ts: takes the number of a job, compresses in the shared memory, answers with the number. */
import { readlinkSync } from "node:fs";
import { setPriority } from "node:os";
import { basename } from "node:path";
import { parentPort, workerData } from "node:worker_threads";
import type { CCtx } from "zstd-napi/binding.js";
import zstd from "zstd-napi/binding.js";
import { JobTable, TOO_LONG, type WorkerData } from "./zstd-jobs.ts";

function compress(context: CCtx, memory: SharedArrayBuffer, table: JobTable, job: number): number {
  const output = new Uint8Array(memory, table.to(job), table.limit(job));
  const input = new Uint8Array(memory, table.from(job), table.length(job));
  try {
    return context.compress(output, input, table.level(job));
  } catch (thrown) {
    // zstd's name for an output that does not fit: the only error that a valid call has
    if (thrown instanceof Error && thrown.message.includes("buffer is too small")) return TOO_LONG;
    throw thrown;
  }
}

/**
 * Whoever waits for a page waits for the threads that carry it, and these are short of a core where it matters: they go first.
 * A core that is idle is still all its own.
 */
const NICENESS = 2;

/** Of this thread only, as Linux has it. */
function giveWay(): void {
  try {
    setPriority(Number(basename(readlinkSync("/proc/thread-self"))), NICENESS);
  } catch {
    // as good as before
  }
}

function main(port: NonNullable<typeof parentPort>, data: WorkerData): void {
  giveWay();
  const context = new zstd.CCtx();
  const table = new JobTable(data.table);
  port.on("message", (job: number) => {
    table.setResult(job, compress(context, data.memory, table, job));
    port.postMessage(job);
  });
}

if (parentPort !== null) main(parentPort, workerData);
