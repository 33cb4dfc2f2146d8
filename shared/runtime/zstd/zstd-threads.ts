/**
 * Starts the threads of zstd-pool.ts, and keeps an idle one. A thread that has finished the jobs of a migration waits
 * for the next migration: starting a new thread would take some 40 ms of a processor, just when the source agent, the
 * guest and the destination's QEMU want all processors (docs/design/warm-up.md#what-waits-for-the-next-migration).
 */
import { Worker } from "node:worker_threads";
import { LET_GO, READY } from "./zstd-jobs.ts";

/**
 * Limits of a thread's heap, MiB. They can be small: a thread handles numbers, and the data that it compresses lies
 * outside its heap, in the shared memory.
 */
const WORKER_LIMITS = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 24, codeRangeSizeMb: 8 };
/**
 * The most idle threads that are kept: as many as one migration has by default. Each takes 6 MB
 * (docs/design/warm-up.md#what-waits-for-the-next-migration).
 */
const WAITING_MAX = 1;

const waiting: Worker[] = [];

/** How many idle threads are kept. For tests. */
export const waitingThreads = (): number => waiting.length;

/** Takes an idle thread, or starts a new one. The thread has no listeners; the caller adds its own. */
export function takeThread(): Worker {
  const found = waiting.pop();
  if (found === undefined)
    return new Worker(new URL("./zstd-worker.js", import.meta.url), { resourceLimits: WORKER_LIMITS });
  forgetListeners(found);
  found.ref();
  return found;
}

/**
 * Removes the listeners of each event by the event's name. A removal without a name would also remove Node's own
 * listeners on the worker, with which Node keeps the program alive for as long as the worker has a listener.
 */
function forgetListeners(worker: Worker): void {
  for (const event of ["message", "error", "exit"]) worker.removeAllListeners(event);
}

/** Takes back a thread that has no jobs. Resolves when the thread does not touch its memory any more. */
export function giveBackThread(worker: Worker): Promise<void> {
  forgetListeners(worker);
  return new Promise((resolve) => {
    const forget = (): void => {
      const at = waiting.indexOf(worker);
      if (at >= 0) waiting.splice(at, 1);
      resolve();
    };
    worker.on("error", forget);
    worker.on("exit", forget);
    worker.on("message", (message: number) => {
      if (message === LET_GO) {
        // unref only now: until the thread has let go of the memory, the caller's await must keep the process alive; an
        // idle thread must not
        worker.unref();
        resolve();
      }
      if (message !== READY) return;
      if (waiting.length < WAITING_MAX) waiting.push(worker);
      else void worker.terminate();
    });
    worker.postMessage(LET_GO);
  });
}
