/** Memory of this host that is free for a guest. */
import { readFile } from "node:fs/promises";
import { freemem } from "node:os";

/** What Linux would give without swapping, bytes. */
export async function availableMemory(): Promise<number> {
  const text = await readFile("/proc/meminfo", "utf8").catch(() => "");
  const kibibytes = /^MemAvailable:\s+(\d+) kB$/m.exec(text)?.[1];
  return kibibytes === undefined ? freemem() : Number(kibibytes) * 1024;
}
