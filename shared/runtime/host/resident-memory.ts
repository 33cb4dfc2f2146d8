/**
 * Tells how much memory a QEMU has in use, by Linux's /proc. At most this much of the guest's memory can hold anything
 * but zeroes. The QEMU is found by its monitor's socket on its command line. The figure is a hint: a caller must be
 * able to do without it.
 */
import { readdir, readFile } from "node:fs/promises";

/**
 * Finds the largest process that has the path in its arguments, and reads its memory.
 * @returns bytes of anonymous and shared memory; files, such as the program itself, are not counted. Undefined when
 *   there is no such process, or none that this agent may see
 */
export async function residentBytesOf(socketPath: string): Promise<number | undefined> {
  let most: number | undefined;
  for (const entry of await readdir("/proc").catch(() => [])) {
    if (!/^\d+$/.test(entry) || entry === String(process.pid)) continue;
    const command = await readFile(`/proc/${entry}/cmdline`, "latin1").catch(() => "");
    if (!names(command, socketPath)) continue;
    const bytes = residentIn(await readFile(`/proc/${entry}/status`, "latin1").catch(() => ""));
    if (bytes !== undefined && bytes > (most ?? 0)) most = bytes;
  }
  return most;
}

/** True when an argument of a command line names the path as a whole, as "unix:/run/ferry/web.qmp,server=on" does. */
const names = (command: string, path: string): boolean =>
  command.split("\0").some((argument) => argument.split(/[,:=]/).includes(path));

/** Adds up RssAnon and RssShmem of /proc/PID/status. @returns bytes; undefined where one of the two is missing */
export function residentIn(status: string): number | undefined {
  const kibibytes = ["RssAnon", "RssShmem"].map((name) => new RegExp(`^${name}:\\s*(\\d+) kB$`, "m").exec(status)?.[1]);
  if (kibibytes.some((found) => found === undefined)) return undefined;
  return 1024 * kibibytes.reduce((sum, found) => sum + Number(found), 0);
}
