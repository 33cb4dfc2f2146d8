/**
 * Removes the files of migrations that an agent's earlier process left behind: sockets and temporary files, which are
 * of no use to the next process.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { removeLeft } from "./remove-left.ts";

/** Matches the name ID.KIND of a migration's file. */
const NAME = /^[0-9a-f]{12}\.([a-z-]+)$/;

/** Removes the files ID.KIND of the given kinds. @returns the names that are gone */
export async function sweep(directory: string, kinds: readonly string[]): Promise<readonly string[]> {
  const names = await readdir(directory).catch(() => []);
  const left = names.filter((name) => kinds.includes(NAME.exec(name)?.[1] ?? ""));
  const gone = await Promise.all(left.map((name) => removeLeft(join(directory, name))));
  return left.filter((_, at) => gone[at] === true);
}
