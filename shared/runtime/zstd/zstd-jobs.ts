/**
 * The table through which zstd-pool.ts and zstd-worker.ts hand jobs over: six 32-bit words a job in shared memory, so
 * that a message is one number and nothing is cloned.
 */

/** Jobs that a pool holds at most; more at once is a mistake of the caller, who has to have a buffer for each. */
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

/** What a worker's next jobs are of. */
export interface WorkerData {
  readonly memory: SharedArrayBuffer;
  readonly table: SharedArrayBuffer;
}

/** In place of a job's number. To a worker: its memory is another's from now on. From it: it touches that no more. */
export const LET_GO = -1;
/** From a worker that was told so: it holds nothing of that memory either. */
export const READY = -2;

export type ToWorker = WorkerData | number;

export class JobTable {
  readonly buffer: SharedArrayBuffer;
  private readonly signed: Int32Array;
  /** The same words: addresses reach up to 4 GiB. */
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

  result(job: number): number {
    return this.signed[job * WORDS + RESULT] ?? TOO_LONG;
  }

  setResult(job: number, result: number): void {
    this.signed[job * WORDS + RESULT] = result;
  }
}
