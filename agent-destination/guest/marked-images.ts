/**
 * Looks for the mark of a source, a small file, beside the images of the destination's QEMU. By this mark an image or a
 * memory file is known to be the same file on both hosts (docs/design/disks.md#when-two-files-are-the-same). The
 * comparison of the disks is in shared/protocol/disks.ts.
 */
import { realpath, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { DiskMark, GuestDisks } from "../../shared/protocol/messages.ts";
import { readSmallFile } from "../../shared/runtime/files/small-file.ts";
import { isMountPoint } from "../../shared/runtime/host/mount-points.ts";

/** The most that is read of a file that may be a mark, bytes. A longer file is no mark. */
const MARK_BYTES_MAX = 64;
/** The type of an overlay file system, OVERLAYFS_SUPER_MAGIC (linux/magic.h). */
const OVERLAYFS = 0x794c7630;

/**
 * Finds the images and memory files in whose directory the source's mark is. A file that is mounted at its path does
 * not belong to that directory, and is left out.
 * @returns their paths, as this QEMU names them
 */
export async function markedImages(
  { drives, memory = [] }: GuestDisks,
  mark: DiskMark | undefined,
): Promise<ReadonlySet<string>> {
  const marked = new Set<string>();
  if (mark === undefined) return marked;
  for (const { file, baseName } of [...drives.flatMap(({ layers }) => layers), ...memory]) {
    if (baseName === "") continue;
    const path = await realpath(file).catch(() => undefined);
    if (path === undefined || (await isMountPoint(path))) continue;
    const folder = dirname(path);
    if ((await contentOf(join(folder, mark.name))) === mark.content && !(await isOverlay(folder))) marked.add(file);
  }
  return marked;
}

/**
 * Tells whether a directory is on an overlay file system. Such a directory shows the mark of the layer below, but what
 * is written to its files goes to this host's own copy. A directory whose file system cannot be told counts as an
 * overlay.
 */
const isOverlay = (folder: string): Promise<boolean> =>
  statfs(folder).then(
    ({ type }) => type === OVERLAYFS,
    () => true,
  );

/** Reads a mark. @returns undefined where there is no such file, or where the file is too large for a mark */
const contentOf = (path: string): Promise<string | undefined> =>
  readSmallFile(path, MARK_BYTES_MAX).catch(() => undefined);
