/**
 * How much memory a QEMU has in use, as Linux's /proc says: of a guest's memory no more than that can hold anything but
 * zeroes. Found by the monitor socket on its command line. A hint: whoever asks has to do without it, too.
 */
import { readdir, readFile } from "node:fs/promises";

/**
 * Of the largest process that has the path in its arguments; undefined when there is none, or none that may be seen.
 * @returns bytes of anonymous and shared memory; files, such as the program itself, are not counted
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

/** Is the path in an argument, as a whole: "unix:/run/ferry/web.qmp,server=on"? */
const names = (command: string, path: string): boolean =>
  command.split("\0").some((argument) => argument.split(/[,:=]/).includes(path));

/** @param status content of /proc/PID/status */
export function residentIn(status: string): number | undefined {
  const kibibytes = ["RssAnon", "RssShmem"].map((name) => new RegExp(`^${name}:\\s*(\\d+) kB$`, "m").exec(status)?.[1]);
  if (kibibytes.some((found) => found === undefined)) return undefined;
  return 1024 * kibibytes.reduce((sum, found) => sum + Number(found), 0);
}
