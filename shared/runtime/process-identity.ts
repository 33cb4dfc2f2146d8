/** Which process a number stands for: numbers are used again, and a reboot starts anew. Linux's /proc. */
import { readFile } from "node:fs/promises";

/** Fields of /proc/PID/stat behind the command's name, which may hold anything: state, …, start time (22nd in all). */
const STATE = 0;
const START_TIME = 19;

/** @returns the same text for as long as this process lives, and no other's; undefined when it has ended */
export async function identify(pid: number): Promise<string | undefined> {
  if (pid <= 0) return undefined;
  try {
    const boot = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // one that has ended and was not waited for
    if (fields[STATE] === "Z" || fields[STATE] === "X") return undefined;
    return `${boot}/${pid}/${fields[START_TIME]}`;
  } catch {
    return undefined; // no such process
  }
}
