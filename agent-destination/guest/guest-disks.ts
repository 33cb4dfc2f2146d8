/** The disks of the destination's QEMU beside those that the guest has: media are carried, and files are told apart. */
import { realpath, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { MigrationFault, type Refusal } from "../../shared/fault.ts";
import type { DiskMark, Drive, GuestDisks, GuestOffer } from "../../shared/protocol/messages.ts";
import { type FoundDisks, type FoundDrive, readDisks } from "../../shared/qemu/inspect/guest-disks.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { readSmallFile } from "../../shared/runtime/files/small-file.ts";
import { isMountPoint } from "../../shared/runtime/host/mount-points.ts";

const MARK_BYTES_MAX = 64;
/** OVERLAYFS_SUPER_MAGIC (linux/magic.h). */
const OVERLAYFS = 0x794c7630;

export interface DisksHere {
  readonly disks: FoundDisks;
  /** Images beside which the source's mark was found. */
  readonly marked: ReadonlySet<string>;
  /** What keeps a medium of the guest from being put in here. */
  readonly refusals: readonly Refusal[];
}

/** What is known of the QEMU here. */
interface Own {
  readonly qmp: QmpClient;
  readonly pid: number;
  /** What readTree() gives. */
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

const mediumOf = ({ layers }: Drive): string =>
  layers.map(({ format, file, writable }) => `${format} ${file} ${writable}`).join(" on ");

async function carryMedium(qmp: QmpClient, { layers }: Drive, { qdev: id }: FoundDrive): Promise<void> {
  const [top] = layers;
  if (top === undefined) await qmp.execute("eject", { id, force: true });
  else {
    const { file: filename, format, writable } = top;
    const mode = writable ? "read-write" : "read-only";
    await qmp.execute("blockdev-change-medium", { id, filename, format, force: true, "read-only-mode": mode });
  }
}

const refusal = ({ name, layers }: Drive, thrown: unknown): Refusal => ({
  code: "disks",
  message: `The guest has ${layers[0]?.file ?? "no medium"} in drive ${name} now, and the destination's QEMU does not take that: ${MigrationFault.from(thrown).message}; make the medium reachable at the same path there, or eject it`,
});

/**
 * Finds the images and memory files in whose directory the source's mark is. Exported for its tests.
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
 * is written to its files goes to this host's own copy. A directory that cannot be asked counts as one.
 */
const isOverlay = (folder: string): Promise<boolean> =>
  statfs(folder).then(
    ({ type }) => type === OVERLAYFS,
    () => true,
  );

/** Reads a mark. @returns undefined where there is no such file, or where the file is too large for a mark */
const contentOf = (path: string): Promise<string | undefined> =>
  readSmallFile(path, MARK_BYTES_MAX).catch(() => undefined);
