/** Reads files that others may have put there: their size and kind are looked at before anything is read. */
import { open, stat } from "node:fs/promises";
import { MigrationFault } from "../../fault.ts";

/**
 * @returns the text of a regular file
 * @throws MigrationFault `configuration` when it is none (reading a pipe would wait for a writer) or longer than
 * `bytesMax`; what the file system says otherwise
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
