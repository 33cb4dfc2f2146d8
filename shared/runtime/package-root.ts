/** Finds the folder of Ferry's own files, for a program that runs from the sources or from a build. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/**
 * Finds the folder that holds package.json, going up from this file. The folder is the same for the sources and for a
 * build, however deep the build's files are.
 */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json"))) {
    const parent = dirname(folder);
    if (parent === folder) throw new RangeError("no package.json above the program's files");
    folder = parent;
  }
  return folder;
}
