/**
 * The threads of zstd-pool.ts. One that a migration has ended with waits for the next: its start takes some 40 ms of a processor,
 * just when the source agent, the guest and the destination's QEMU want all there are (docs/decisions/0041).
 */
import { Worker } from "node:worker_threads";
import { LET_GO, READY } from "./zstd-jobs.ts";

/** A worker handles numbers; what it compresses lies outside its heap. MiB. */
const WORKER_LIMITS = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 24, codeRangeSizeMb: 8 };
/** Threads that wait, at most: of one migration, as configured by default. */
const WAITING_MAX = 1;

const waiting: Worker[] = [];

/** How many wait. For tests. */
export const waitingThreads = (): number => waiting.length;

/** One that waits, or a new one; its listeners are the caller's. */
export function takeThread(): Worker {
  const found = waiting.pop();
  if (found === undefined)
    return new Worker(new URL("./zstd-worker.js", import.meta.url), { resourceLimits: WORKER_LIMITS });
  forgetListeners(found);
  found.ref();
  return found;
}

/** By name: Node has listeners of its own there, by which a worker that is listened to keeps the program alive. */
function forgetListeners(worker: Worker): void {
  for (const event of ["message", "error", "exit"]) worker.removeAllListeners(event);
}

/** Takes back one that has no jobs. Resolves when it touches its memory no more. */
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
        // whoever waits keeps the program alive, and who waits for work does not
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
