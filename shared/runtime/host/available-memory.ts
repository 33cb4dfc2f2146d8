/** Tells how much memory of this host is free for a guest. */
import { readFile } from "node:fs/promises";
import { freemem } from "node:os";

/** @returns how many bytes Linux would give without swapping */
export async function availableMemory(): Promise<number> {
  const text = await readFile("/proc/meminfo", "utf8").catch(() => "");
  const kibibytes = /^MemAvailable:\s+(\d+) kB$/m.exec(text)?.[1];
  return kibibytes === undefined ? freemem() : Number(kibibytes) * 1024;
}
