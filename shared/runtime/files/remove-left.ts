/**
 * Removes files from a directory in which a guest's user may write. An escaped guest may put anything at such a path, a
 * directory for instance, and none of it may keep an agent from starting, or from ending a QEMU. So nothing here fails:
 * what cannot be removed stays, and code that needs the path to be free gets the system's error when it uses the path.
 */
import { rmdirSync, unlinkSync } from "node:fs";
import { rmdir, unlink } from "node:fs/promises";

/**
 * Removes the file, the socket, the link or the empty directory at the path. A link is not followed.
 * @returns false when something stays there
 */
export async function removeLeft(path: string): Promise<boolean> {
  try {
    await unlink(path);
  } catch (thrown) {
    if (isAway(thrown)) return true;
    return rmdir(path).then(
      () => true,
      () => false,
    );
  }
  return true;
}

/** Does the same as removeLeft() before it returns. */
export function removeLeftNow(path: string): boolean {
  try {
    unlinkSync(path);
  } catch (thrown) {
    if (isAway(thrown)) return true;
    try {
      rmdirSync(path);
    } catch {
      return false;
    }
  }
  return true;
}

const isAway = (thrown: unknown): boolean => thrown instanceof Error && "code" in thrown && thrown.code === "ENOENT";
