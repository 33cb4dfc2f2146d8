/** The end of a QEMU's own output, which says why QEMU has failed. The output is gone with the guest. */
import { readFile } from "node:fs/promises";

/** The most that a fault has of QEMU's output, in characters: its end, which has the reason. */
const TAIL_CHARACTERS = 1000;

/** @returns the empty text for a QEMU that has written nothing, or whose output is gone */
export async function lastWordsIn(logPath: string): Promise<string> {
  return (await readFile(logPath, "utf8").catch(() => "")).slice(-TAIL_CHARACTERS).trim();
}
