/**
 * Reads files at paths where other users may have put something else. The kind and the size that are checked are those
 * of the file that is open, not of what stood at its path a moment before. Of a file that grows meanwhile, at most one
 * byte beyond the bound is read.
 */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { MigrationFault } from "../../fault.ts";

/**
 * Reads the text of a regular file.
 * @throws MigrationFault `configuration` when the path is no regular file, or when the file is longer than `bytesMax`
 *   bytes; and the errors of the file system
 */
export async function readSmallFile(path: string, bytesMax: number): Promise<string> {
  // without O_NONBLOCK, opening a pipe would wait for a writer
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  try {
    const stats = await handle.stat();
    if (!stats.isFile()) throw refused("is not a regular file");
    if (stats.size > bytesMax) throw tooLong(bytesMax);
    const chunks: Buffer[] = [];
    // `end` is the index of the last byte that is read: one byte beyond the bound shows that the file is too long
    for await (const chunk of handle.createReadStream({ end: bytesMax, autoClose: false })) chunks.push(chunk);
    const bytes = Buffer.concat(chunks);
    if (bytes.length > bytesMax) throw tooLong(bytesMax);
    return bytes.toString("utf8");
  } finally {
    await handle.close();
  }
}

const tooLong = (bytesMax: number): MigrationFault => refused(`is longer than ${bytesMax} bytes`);
const refused = (why: string): MigrationFault => new MigrationFault("configuration", `It ${why}`);
