/**
 * Compresses ranges of the shared memory on threads of its own. zstd-napi is synchronous, and at some 450 MB/s (level
 * 1; docs/results/micro.md) it would hold up everything else on the event loop. Nothing is copied or cloned: a job is
 * six numbers in a shared table (zstd-jobs.ts), and the message to the thread is the job's index.
 *
 * The caller must leave both ranges of a job alone until the promise settles. A thread does its jobs in order. A new
 * job goes to the thread with the fewest jobs, so that a thread has its next job at hand when it finishes one.
 */
import type { Worker } from "node:worker_threads";
import { MigrationFault } from "../../fault.ts";
import { JOBS_MAX, JobTable, type WorkerData } from "./zstd-jobs.ts";
import { giveBackThread, takeThread } from "./zstd-threads.ts";

interface Job {
  readonly resolve: (length: number) => void;
  readonly reject: (fault: MigrationFault) => void;
  readonly thread: Thread;
}

interface Thread {
  readonly worker: Worker;
  jobs: number;
}

export class ZstdPool {
  private readonly byteLength: number;
  private readonly table = new JobTable();
  private readonly threads: Thread[] = [];
  private readonly jobs: (Job | undefined)[] = new Array(JOBS_MAX).fill(undefined);
  private readonly free: number[] = Array.from({ length: JOBS_MAX }, (_, index) => JOBS_MAX - 1 - index);
  private ended: MigrationFault | undefined;

  /**
   * @param memory what the ranges of compress() refer to: a view of a SharedArrayBuffer, from its start
   * @param workers how many threads, 1 or more
   */
  constructor(memory: Uint8Array, workers: number) {
    if (!(memory.buffer instanceof SharedArrayBuffer) || memory.byteOffset !== 0)
      throw new TypeError("the pool needs shared memory, from its start");
    if (!Number.isInteger(workers) || workers < 1) throw new RangeError(`a pool of ${workers} workers`);
    this.byteLength = memory.byteLength;
    const data: WorkerData = { memory: memory.buffer, table: this.table.buffer };
    for (let index = 0; index < workers; index++) this.threads.push(this.start(data));
  }

  /** How many more jobs can be handed over now. */
  get room(): number {
    return this.free.length;
  }

  /**
   * Compresses `length` bytes at `from` to at most `limit` bytes at `to`.
   * @param level zstd's level; the negative levels are the fast ones
   * @returns how many bytes were written, or -1 when they would be more than `limit`: compression was not worth it
   * @throws MigrationFault `internal` when a thread crashed, `cancelled` when the pool was closed
   */
  compress(from: number, length: number, to: number, limit: number, level: number): Promise<number> {
    if (this.ended !== undefined) return Promise.reject(this.ended);
    if (from < 0 || length < 0 || to < 0 || limit < 0) throw new RangeError("a range begins before the memory");
    if (from + length > this.byteLength || to + limit > this.byteLength)
      throw new RangeError("a range ends behind the memory");
    const index = this.free.pop();
    const thread = this.leastBusy();
    if (index === undefined || thread === undefined) throw new RangeError(`more than ${JOBS_MAX} jobs at once`);
    this.table.put(index, from, length, to, limit, level);
    thread.jobs += 1;
    return new Promise((resolve, reject) => {
      this.jobs[index] = { resolve, reject, thread };
      thread.worker.postMessage(index);
    });
  }

  /** Ends all threads and rejects the pending jobs. Resolves when no thread touches the memory any more. */
  async close(): Promise<void> {
    this.fail(new MigrationFault("cancelled", "The compression workers were ended"));
    await Promise.all(this.threads.map(({ worker }) => worker.terminate()));
  }

  /**
   * Closes the pool as close() does, but keeps threads without a job for the next pool (zstd-threads.ts). Resolves when
   * no thread touches the memory any more.
   */
  async release(): Promise<void> {
    const idle = this.ended === undefined ? this.threads.filter(({ jobs }) => jobs === 0) : [];
    for (const thread of idle) this.threads.splice(this.threads.indexOf(thread), 1);
    await Promise.all([this.close(), ...idle.map(({ worker }) => giveBackThread(worker))]);
  }

  private start(data: WorkerData): Thread {
    const worker = takeThread();
    worker.postMessage(data);
    worker.on("message", (index: number) => this.settle(index));
    worker.on("error", (cause) => this.crashed(cause instanceof Error ? cause.message : String(cause), cause));
    worker.on("exit", (code) => this.crashed(`it exited with ${code}`));
    return { worker, jobs: 0 };
  }

  private leastBusy(): Thread | undefined {
    let best = this.threads[0];
    for (const thread of this.threads) if (best !== undefined && thread.jobs < best.jobs) best = thread;
    return best;
  }

  private settle(index: number): void {
    const job = this.jobs[index];
    if (job === undefined) return; // the job was rejected when the pool ended, before this answer arrived
    this.jobs[index] = undefined;
    this.free.push(index);
    job.thread.jobs -= 1;
    job.resolve(this.table.result(index));
  }

  private crashed(reason: string, cause?: unknown): void {
    this.fail(new MigrationFault("internal", `A compression worker failed: ${reason}`, { cause }));
  }

  private fail(fault: MigrationFault): void {
    if (this.ended !== undefined) return;
    this.ended = fault;
    for (const job of this.jobs.splice(0)) job?.reject(fault);
  }
}
