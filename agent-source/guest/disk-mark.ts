/**
 * Lets the destination find out whether it shares a guest's images and memory files with this host. While the
 * destination is asked this, the source leaves a small file, the mark, in each directory that holds such a file which
 * the guest may write to. A host that finds the mark beside its own image of the same name shares that image. Where
 * both agents are on one host, or no mark can be written, other proofs are needed (shared/protocol/disks.ts).
 */
import { randomBytes } from "node:crypto";
import { realpath, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { DiskMark, GuestDisks } from "../../shared/protocol/messages.ts";
import { isMountPoint } from "../../shared/runtime/host/mount-points.ts";

export interface Marked {
  /** Undefined where no directory could be written. */
  readonly mark: DiskMark | undefined;
  /** Removes the marks. Never rejects. */
  readonly remove: () => Promise<void>;
}

/**
 * Follows symbolic links, and finds the directory that holds a file.
 * @returns `folder`, empty where there is no file; `isForeign` is true where another file is mounted over the path,
 *   so that the directory does not hold what is seen there
 */
async function folderOf(file: string): Promise<{ readonly folder: string; readonly isForeign: boolean }> {
  const path = await realpath(file).catch(() => "");
  return path === ""
    ? { folder: "", isForeign: false }
    : { folder: dirname(path), isForeign: await isMountPoint(path) };
}

/**
 * Writes a mark beside each image and memory file that the guest may write to. Never rejects.
 * @param migrationId a part of the mark's name, so that each migration has marks of its own
 */
export async function markDisks({ drives, memory = [] }: GuestDisks, migrationId: string): Promise<Marked> {
  const images = [...drives.flatMap(({ layers }) => layers), ...memory].filter(
    ({ writable, baseName }) => writable && baseName !== "",
  );
  const mark = { name: `.ferry-${migrationId}`, content: randomBytes(16).toString("hex") };
  const folders = await Promise.all(images.map(({ file }) => folderOf(file)));
  const foreign = new Set(folders.filter((one) => one.isForeign).map(({ folder }) => folder));
  const made: string[] = [];
  for (const folder of new Set(folders.map((one) => one.folder))) {
    if (folder === "" || /^\/dev(\/|$)/.test(folder) || foreign.has(folder)) continue;
    const path = join(folder, mark.name);
    const isMade = await writeFile(path, mark.content, { flag: "wx", mode: 0o444 }).then(
      () => true,
      () => false,
    );
    if (isMade) made.push(path);
  }
  const remove = async (): Promise<void> => {
    await Promise.all(made.map((path) => rm(path, { force: true }).catch(() => undefined)));
  };
  return { mark: made.length === 0 ? undefined : mark, remove };
}
