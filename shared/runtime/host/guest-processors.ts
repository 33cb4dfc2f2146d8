/**
 * Tells how much time a guest's virtual processors got on the host's processors, as Linux counts it
 * (/proc/TID/schedstat). The figures are a hint: they may be unreadable.
 */
import { readFile } from "node:fs/promises";
import { statFields } from "./process-identity.ts";

export interface ProcessorTimes {
  /** For how long the threads were on a processor, seconds since each thread began, summed over the threads. */
  readonly ranSeconds: number;
  /** For how long the threads were ready but waited for a processor, summed in the same way. */
  readonly waitedSeconds: number;
  /** The processor time of the whole QEMU, with its other threads, seconds. */
  readonly qemuCpuSeconds: number;
}

/** Ticks a second in /proc/PID/stat. Since Linux 2.6 user space sees 100 on every architecture. */
const TICKS_PER_SECOND = 100;

/**
 * Reads the times of a guest's virtual processors.
 * @param threads the ids of their threads, as QMP's `query-cpus-fast` names them
 * @returns undefined when there is no thread, or when one of the threads cannot be looked at
 */
export async function processorTimes(threads: readonly number[]): Promise<ProcessorTimes | undefined> {
  const [first] = threads;
  // the numbers come from QEMU, and become parts of paths below
  if (first === undefined || !threads.every(Number.isSafeInteger)) return undefined;
  try {
    const each = await Promise.all(threads.map((id) => readFile(`/proc/${id}/schedstat`, "latin1").then(scheduled)));
    const qemuCpuSeconds = usedIn(await readFile(`/proc/${first}/stat`, "latin1"));
    if (qemuCpuSeconds === undefined) return undefined;
    let ranSeconds = 0;
    let waitedSeconds = 0;
    for (const one of each) {
      if (one === undefined) return undefined;
      ranSeconds += one.ran;
      waitedSeconds += one.waited;
    }
    return { ranSeconds, waitedSeconds, qemuCpuSeconds };
  } catch {
    return undefined;
  }
}

/**
 * Parses /proc/TID/schedstat.
 * @param text three numbers: nanoseconds on a processor, nanoseconds of waiting for one, and how often the thread was
 *   put on one
 * @returns seconds; undefined for another text
 */
export function scheduled(text: string): { readonly ran: number; readonly waited: number } | undefined {
  const [ran, waited] = text.trim().split(" ").map(Number);
  if (ran === undefined || waited === undefined || Number.isNaN(ran + waited)) return undefined;
  return { ran: ran / 1e9, waited: waited / 1e9 };
}

/** Parses /proc/PID/stat. @returns the sum of user and system time, seconds; undefined for another text */
export function usedIn(text: string): number | undefined {
  const fields = statFields(text);
  const ticks = Number(fields[11]) + Number(fields[12]);
  return Number.isNaN(ticks) ? undefined : ticks / TICKS_PER_SECOND;
}
