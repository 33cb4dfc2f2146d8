/**
 * One thread of zstd-pool.ts: takes the number of a job, compresses in the shared memory, answers with the number. Which memory it is
 * comes ahead of the jobs; when its pool lets go of it, it lets go of that, and takes the next.
 */
import { readlinkSync } from "node:fs";
import { setPriority } from "node:os";
import { basename } from "node:path";
import { parentPort } from "node:worker_threads";
import type { CCtx } from "zstd-napi/binding.js";
import zstd from "zstd-napi/binding.js";
import { returnMemory } from "../v8/return-memory.ts";
import { JobTable, LET_GO, READY, TOO_LONG, type ToWorker } from "./zstd-jobs.ts";

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

interface Work {
  readonly memory: SharedArrayBuffer;
  readonly table: JobTable;
}

function main(port: NonNullable<typeof parentPort>): void {
  giveWay();
  // that a measurement of memory is experimental: the agent's own thread has it in the log already
  process.removeAllListeners("warning");
  const context = new zstd.CCtx();
  let work: Work | undefined;
  port.on("message", (message: ToWorker) => {
    if (typeof message !== "number") {
      work = { memory: message.memory, table: new JobTable(message.table) };
    } else if (message === LET_GO) {
      work = undefined;
      port.postMessage(LET_GO);
      // an idle thread's heap is never collected by itself, and would hold hundreds of megabytes by an object of a few bytes
      void returnMemory().then(() => port.postMessage(READY));
    } else if (work !== undefined) {
      work.table.setResult(message, compress(context, work.memory, work.table, message));
      port.postMessage(message);
    }
  });
}

if (parentPort !== null) main(parentPort);
