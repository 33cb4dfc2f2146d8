/** Finds mount points. A file that is mounted at a path does not belong to the directory in which that path is. */
import { readFile } from "node:fs/promises";

/** Tells whether something is mounted at a path. @param path an absolute path without symbolic links */
export async function isMountPoint(path: string): Promise<boolean> {
  const mounts = await readFile("/proc/self/mountinfo", "utf8").catch(() => "");
  return mounts.split("\n").some((line) => unescaped(line.split(" ")[4] ?? "") === path);
}

/** The kernel writes spaces and some other characters as a backslash and three octal digits (proc_pid_mountinfo(5)). */
const unescaped = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 8)));
