/**
 * Removes the files of migrations that an agent's earlier process left behind: sockets and temporary files, which are
 * of no use to the next process.
 */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";

/** ID.KIND. */
const NAME = /^[0-9a-f]{12}\.([a-z-]+)$/;

/** Removes the files ID.KIND of the given kinds. @returns the names that were removed */
export async function sweep(directory: string, kinds: readonly string[]): Promise<readonly string[]> {
  const names = await readdir(directory).catch(() => []);
  const left = names.filter((name) => kinds.includes(NAME.exec(name)?.[1] ?? ""));
  for (const name of left) await rm(join(directory, name), { force: true });
  return left;
}
