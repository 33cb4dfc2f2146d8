/**
 * Reads the end of a QEMU's own output, which says why QEMU has failed. An agent that discards a QEMU removes this
 * output too, so it is read before.
 */

import { openUnfollowed } from "../../shared/qemu/inspect/unfollowed-file.ts";
import { olderLog } from "../../shared/runtime/guest/guest-log.ts";

/** How many characters of QEMU's output a fault has at most: the end of it, which has the reason. */
const TAIL_CHARACTERS = 1000;
/**
 * How many bytes of QEMU's output are read at most: a character of UTF-8 has up to four. The file may be far longer,
 * since a guest with a user of its own can fill the 64 MiB of its directory
 * (docs/design/guests-and-units.md#the-output-of-a-guest).
 */
const TAIL_BYTES = 4 * TAIL_CHARACTERS;

/**
 * Reads the last words of a QEMU.
 * @returns the empty text for a QEMU that has written nothing, or whose output is gone
 */
export async function lastWordsIn(logPath: string): Promise<string> {
  const newest = await tailOf(logPath).catch(() => "");
  // the log may have been full just before, and been put aside
  const older = newest.length < TAIL_CHARACTERS ? await tailOf(olderLog(logPath)).catch(() => "") : "";
  return (older + newest).slice(-TAIL_CHARACTERS).trim();
}

/**
 * Reads the last TAIL_BYTES of a file, or all of a shorter one.
 * @throws the error of the file system
 */
async function tailOf(path: string): Promise<string> {
  // the directory may belong to the guest's user, so a link, a pipe or another file that was linked to this path is not
  // read
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
