/** Reads files that others may have put there: the size and the kind of a file are checked before anything is read. */
import { open, stat } from "node:fs/promises";
import { MigrationFault } from "../../fault.ts";

/**
 * Reads the text of a regular file.
 * @throws MigrationFault `configuration` when the path is no regular file (opening a pipe would wait for a writer), or
 *   when the file is longer than `bytesMax` bytes; and the errors of the file system
 */
export async function readSmallFile(path: string, bytesMax: number): Promise<string> {
  if (!(await stat(path)).isFile()) throw refused("is not a regular file");
  const handle = await open(path, "r");
  try {
    const { size } = await handle.stat();
    if (size > bytesMax) throw refused(`is longer than ${bytesMax} bytes`);
    return await handle.readFile("utf8");
  } finally {
    await handle.close();
  }
}

const refused = (why: string): MigrationFault => new MigrationFault("configuration", `It ${why}`);
