/** The end of a QEMU's own output, which says why QEMU has failed. The output is gone with the guest. */

import { openUnfollowed } from "../../shared/qemu/inspect/unfollowed-file.ts";
import { olderLog } from "../../shared/runtime/guest/guest-log.ts";

/** The most that a fault has of QEMU's output, in characters: its end, which has the reason. */
const TAIL_CHARACTERS = 1000;
/**
 * The most that is read of QEMU's output, in bytes: a character of UTF-8 has four at most. The file itself may have
 * gigabytes, which a guest has written.
 */
const TAIL_BYTES = 4 * TAIL_CHARACTERS;

/** @returns the empty text for a QEMU that has written nothing, or whose output is gone */
export async function lastWordsIn(logPath: string): Promise<string> {
  const newest = await tailOf(logPath).catch(() => "");
  // a file that was full was put aside just before
  const older = newest.length < TAIL_CHARACTERS ? await tailOf(olderLog(logPath)).catch(() => "") : "";
  return (older + newest).slice(-TAIL_CHARACTERS).trim();
}

/** Reads the last TAIL_BYTES of a file, or all of a shorter one. @throws the error of the file system */
async function tailOf(path: string): Promise<string> {
  // the directory may be the guest's: neither a link, a pipe nor another file of its naming is read
  const file = await openUnfollowed(path);
  try {
    const found = await file.stat();
    if (!found.isFile() || found.nlink !== 1) return "";
    const { size } = found;
    const tail = Buffer.alloc(Math.min(size, TAIL_BYTES));
    const { bytesRead } = await file.read(tail, 0, tail.length, size - tail.length);
    return tail.toString("utf8", 0, bytesRead);
  } finally {
    await file.close();
  }
}
