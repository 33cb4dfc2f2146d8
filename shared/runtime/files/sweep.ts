/** Files of migrations that an earlier life of an agent left: sockets and temporary files, which a restart makes worthless. */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";

const NAME = /^[0-9a-f]{12}\.([a-z-]+)$/;

/** Removes ID.KIND for the given kinds. @returns the names that were removed */
export async function sweep(directory: string, kinds: readonly string[]): Promise<readonly string[]> {
  const names = await readdir(directory).catch(() => []);
  const left = names.filter((name) => kinds.includes(NAME.exec(name)?.[1] ?? ""));
  for (const name of left) await rm(join(directory, name), { force: true });
  return left;
}
