/**
 * What a guest's virtual processors got of the host's, as Linux counts it (/proc/TID/schedstat). A hint: it may be
 * unreadable.
 */
import { readFile } from "node:fs/promises";
import { statFields } from "./process-identity.ts";

export interface ProcessorTimes {
  /** Sums over the threads, seconds since each began: on a processor, and ready but waiting for one. */
  readonly ranSeconds: number;
  readonly waitedSeconds: number;
  /** Of the whole QEMU, its other threads too. */
  readonly qemuCpuSeconds: number;
}

/** Ticks of /proc/PID/stat; Linux has told 100 to user space on every architecture since 2.6. */
const TICKS_PER_SECOND = 100;

/**
 * @param threads thread ids, as QMP's query-cpus-fast names them;
 * @returns undefined when one of them cannot be looked at
 */
export async function processorTimes(threads: readonly number[]): Promise<ProcessorTimes | undefined> {
  const [first] = threads;
  // QEMU names the threads, and their numbers become parts of paths below
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

/** @param text "nanoseconds that it ran, nanoseconds that it waited, times that it was put on a processor" */
export function scheduled(text: string): { readonly ran: number; readonly waited: number } | undefined {
  const [ran, waited] = text.trim().split(" ").map(Number);
  if (ran === undefined || waited === undefined || Number.isNaN(ran + waited)) return undefined;
  return { ran: ran / 1e9, waited: waited / 1e9 };
}

/** @param text /proc/PID/stat. @returns user and system time, seconds */
export function usedIn(text: string): number | undefined {
  const fields = statFields(text);
  const ticks = Number(fields[11]) + Number(fields[12]);
  return Number.isNaN(ticks) ? undefined : ticks / TICKS_PER_SECOND;
}
