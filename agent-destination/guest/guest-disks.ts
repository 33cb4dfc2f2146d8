/**
 * Prepares the disks of the destination's QEMU for a comparison with those that the guest has. The media in removable
 * drives are carried over, and the source's mark is looked for, by which a file is known to be the same one on both
 * hosts (docs/design/disks.md#when-two-files-are-the-same). The comparison itself is in shared/protocol/disks.ts.
 */
import { realpath, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { MigrationFault, type Refusal } from "../../shared/fault.ts";
import type { DiskMark, Drive, GuestDisks, GuestOffer } from "../../shared/protocol/messages.ts";
import { type FoundDisks, type FoundDrive, readDisks } from "../../shared/qemu/inspect/guest-disks.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { readSmallFile } from "../../shared/runtime/files/small-file.ts";
import { isMountPoint } from "../../shared/runtime/host/mount-points.ts";

/** The most that is read of a file that may be a mark, bytes. A longer file is no mark. */
const MARK_BYTES_MAX = 64;
/** The type of an overlay file system, OVERLAYFS_SUPER_MAGIC (linux/magic.h). */
const OVERLAYFS = 0x794c7630;

/** What was found of the disks here. */
export interface DisksHere {
  readonly disks: FoundDisks;
  /** The images beside which the source's mark was found. */
  readonly marked: ReadonlySet<string>;
  /** What keeps a medium of the guest from being put into its drive here. */
  readonly refusals: readonly Refusal[];
}

/** What is known of the QEMU here. */
interface Own {
  readonly qmp: QmpClient;
  readonly pid: number;
  /** What readTree() gives for this QEMU. */
  readonly tree: Promise<string>;
}

/** Gives each removable drive the medium that the guest has in it now, and looks for the source's mark. */
export async function disksHere({ qmp, pid, tree }: Own, guest: GuestOffer): Promise<DisksHere> {
  const found = await readDisks(qmp, pid, tree);
  const refusals: Refusal[] = [];
  let isChanged = false;
  for (const drive of guest.disks?.drives ?? []) {
    const own = found.drives.find(({ name }) => name === drive.name);
    if (own === undefined || !own.removable || mediumOf(drive) === mediumOf(own)) continue;
    isChanged = true;
    await carryMedium(qmp, drive, own).catch((thrown: unknown) => refusals.push(refusal(drive, thrown)));
  }
  const disks = isChanged ? await readDisks(qmp, pid) : found;
  return { disks, refusals, marked: await markedImages(disks, guest.mark) };
}

/** Describes the medium in a drive; empty where there is none. */
const mediumOf = ({ layers }: Drive): string =>
  layers.map(({ format, file, writable }) => `${format} ${file} ${writable}`).join(" on ");

/** Puts a medium of the guest into its drive here, or ejects what is in that drive. */
async function carryMedium(qmp: QmpClient, { layers }: Drive, { qdev: id }: FoundDrive): Promise<void> {
  const [top] = layers;
  if (top === undefined) await qmp.execute("eject", { id, force: true });
  else {
    const { file: filename, format, writable } = top;
    const mode = writable ? "read-write" : "read-only";
    await qmp.execute("blockdev-change-medium", { id, filename, format, force: true, "read-only-mode": mode });
  }
}

/** Makes the refusal for a medium that QEMU does not take. */
const refusal = ({ name, layers }: Drive, thrown: unknown): Refusal => ({
  code: "disks",
  message: `The guest has ${layers[0]?.file ?? "no medium"} in drive ${name} now, and the destination's QEMU does not take that: ${MigrationFault.from(thrown).message}; make the medium reachable at the same path there, or eject it`,
});

/**
 * Finds the images and memory files in whose directory the source's mark is. A file that is mounted at its path does
 * not belong to that directory, and is left out. Exported for its tests.
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
