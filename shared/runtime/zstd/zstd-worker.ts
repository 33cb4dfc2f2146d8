/**
 * One thread of zstd-pool.ts. It takes the number of a job, compresses within the shared memory, and answers with the
 * number. A message before the jobs says which memory that is. When the pool gives the thread back, the thread lets go
 * of the memory, and can take the memory of the next pool.
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
    // zstd's words for an output that does not fit, which is the only error that a valid call can have
    if (thrown instanceof Error && thrown.message.includes("buffer is too small")) return TOO_LONG;
    throw thrown;
  }
}

/**
 * The nice value of a compression thread. The higher the value, the less processor time Linux gives the thread beside
 * others. A guest that waits for a page waits for the threads that carry pages. Where processors are scarce, these
 * threads must go first. Where a processor is idle, a compression thread is as fast as with the value 0.
 */
const NICENESS = 2;

/** Sets the nice value of this thread alone, which Linux permits. */
function giveWay(): void {
  try {
    setPriority(Number(basename(readlinkSync("/proc/thread-self"))), NICENESS);
  } catch {
    // without a nice value the thread works as well, and only gives way less
  }
}

interface Work {
  readonly memory: SharedArrayBuffer;
  readonly table: JobTable;
}

function main(port: NonNullable<typeof parentPort>): void {
  giveWay();
  // Node warns that a measurement of memory is experimental, and the agent's main thread logs the same warning
  process.removeAllListeners("warning");
  const context = new zstd.CCtx();
  let work: Work | undefined;
  port.on("message", (message: ToWorker) => {
    if (typeof message !== "number") {
      work = { memory: message.memory, table: new JobTable(message.table) };
    } else if (message === LET_GO) {
      work = undefined;
      port.postMessage(LET_GO);
      // V8 never collects the heap of an idle thread by itself, so an object of a few bytes would keep the memory,
      // which has hundreds of megabytes
      void returnMemory().then(() => port.postMessage(READY));
    } else if (work !== undefined) {
      work.table.setResult(message, compress(context, work.memory, work.table, message));
      port.postMessage(message);
    }
  });
}

if (parentPort !== null) main(parentPort);
