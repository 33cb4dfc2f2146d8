/**
 * The table of compression jobs that zstd-pool.ts and zstd-worker.ts share. A job is six 32-bit words in shared memory,
 * so a message between the two is one number, the index of the job, and nothing is cloned.
 */

/**
 * The most jobs that a pool holds at the same time. The caller needs a buffer for each job, so more jobs at once are a
 * mistake of the caller.
 */
export const JOBS_MAX = 64;

const WORDS = 6;
const FROM = 0;
const LENGTH = 1;
const TO = 2;
const LIMIT = 3;
const LEVEL = 4;
const RESULT = 5;

/** Written to RESULT for a job whose output would be longer than its limit. */
export const TOO_LONG = -1;

/** What a worker gets before the first job of a pool. */
export interface WorkerData {
  /** The memory that the addresses of the jobs refer to. */
  readonly memory: SharedArrayBuffer;
  /** The buffer of the pool's JobTable. */
  readonly table: SharedArrayBuffer;
}

/**
 * Sent in place of a job's number. Sent to a worker, it asks the worker to let go of the memory. Sent by a worker, it
 * says that the worker does not touch the memory any more.
 */
export const LET_GO = -1;
/** Sent by a worker after LET_GO, when its heap was collected: the worker does not keep the memory alive any more. */
export const READY = -2;

/** A message to a worker: the data of its next jobs, the number of a job, or LET_GO. */
export type ToWorker = WorkerData | number;

/** The words of all jobs, each job under its number. Addresses, lengths and limits are in bytes. */
export class JobTable {
  readonly buffer: SharedArrayBuffer;
  private readonly signed: Int32Array;
  /** The same words as unsigned numbers, since addresses reach up to 4 GiB. */
  private readonly unsigned: Uint32Array;

  constructor(buffer = new SharedArrayBuffer(JOBS_MAX * WORDS * 4)) {
    this.buffer = buffer;
    this.signed = new Int32Array(buffer);
    this.unsigned = new Uint32Array(buffer);
  }

  put(job: number, from: number, length: number, to: number, limit: number, level: number): void {
    const at = job * WORDS;
    this.unsigned[at + FROM] = from;
    this.unsigned[at + LENGTH] = length;
    this.unsigned[at + TO] = to;
    this.unsigned[at + LIMIT] = limit;
    this.signed[at + LEVEL] = level;
  }

  from = (job: number): number => this.unsigned[job * WORDS + FROM] ?? 0;
  length = (job: number): number => this.unsigned[job * WORDS + LENGTH] ?? 0;
  to = (job: number): number => this.unsigned[job * WORDS + TO] ?? 0;
  limit = (job: number): number => this.unsigned[job * WORDS + LIMIT] ?? 0;
  level = (job: number): number => this.signed[job * WORDS + LEVEL] ?? 0;

  /** @returns the number of bytes that the worker has written, or TOO_LONG */
  result(job: number): number {
    return this.signed[job * WORDS + RESULT] ?? TOO_LONG;
  }

  setResult(job: number, result: number): void {
    this.signed[job * WORDS + RESULT] = result;
  }
}
