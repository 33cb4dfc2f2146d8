/**
 * Looks through all processes of this host. Only a few are looked at together: a host may have more processes than an
 * agent may have open files, and a file that cannot be opened would make a process look like one that is not wanted.
 */
import { readdir } from "node:fs/promises";

/** How many processes are looked at together. Each look has at most two files open. */
const TOGETHER = 16;

/** @returns the processes for which `isWanted` is true, without this process */
export async function findProcesses(isWanted: (pid: number) => Promise<boolean>): Promise<number[]> {
  const pids = (await readdir("/proc")).map(Number).filter((pid) => Number.isInteger(pid) && pid !== process.pid);
  const found: number[] = [];
  while (pids.length > 0) {
    const some = pids.splice(0, TOGETHER);
    const wanted = await Promise.all(some.map(isWanted));
    found.push(...some.filter((_, index) => wanted[index]));
  }
  return found;
}
