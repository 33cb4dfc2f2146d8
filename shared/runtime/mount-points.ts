/** Files on which another one was mounted: such a file does not belong to the directory in which it is seen. */
import { readFile } from "node:fs/promises";

/** @param path behind links */
export async function isMountPoint(path: string): Promise<boolean> {
  const mounts = await readFile("/proc/self/mountinfo", "utf8").catch(() => "");
  return mounts.split("\n").some((line) => unescaped(line.split(" ")[4] ?? "") === path);
}

/** Spaces and the like are octal numbers (proc_pid_mountinfo(5)). */
const unescaped = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 8)));
