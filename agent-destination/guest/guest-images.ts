/**
 * The images of a guest that waits here: how they are tried and released. QEMU opens the images of an incoming guest
 * inactive: not locked, and not for writing. From QEMU 10.0 on `cont` activates them. Where another program holds a
 * lock on an image, or the file system is read-only, that activation fails, and `cont` fails with it.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { MigrationFault } from "../../shared/fault.ts";
import type { GuestDisks } from "../../shared/protocol/messages.ts";
import { filesByUnit } from "../../shared/qemu/inspect/files-by-unit.ts";
import { replacedImages } from "../../shared/qemu/inspect/guest-disks.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";

/**
 * The first major version of QEMU that has `blockdev-set-active`. Older versions activate the images when they have
 * loaded the guest.
 */
const SETS_ACTIVE = 10;

/** A QEMU that has the images of a guest open. */
export interface HasImages {
  readonly qmp: QmpClient;
  readonly process: { readonly pid: number };
  /**
   * True where QEMU failed to activate an image and still holds a part of the image's locks, which it does until it
   * ends. This was seen with QEMU 10.0.2 when another program had locked the image in a way that lets others write as
   * well. QEMU then takes the lock of a writer, finds that it may not have the image for itself, reports the image as
   * inactive, and does not release that lock.
   */
  keepsLocks: boolean;
}

/**
 * Checks that the images are still at their paths, since QEMU opens them there once more to write to them. From QEMU
 * 10.0 on this also activates the images, as `cont` will do, and deactivates them again, while the source can still
 * take them back. That takes some milliseconds at most, and nothing is done for a guest without images.
 * @param disks the guest's disks as they were compared with those of the source; where undefined, no path is checked
 * @throws MigrationFault `disks-changed` where another file is at a path; `qemu-failed` with QEMU's words where the
 *   images cannot be activated, once letGoOfImages() has released their locks
 */
export async function tryImages(guest: HasImages, disks?: GuestDisks): Promise<void> {
  const { qmp } = guest;
  const replaced = disks === undefined ? [] : await replacedImages(disks);
  if (replaced.length > 0)
    throw new MigrationFault(
      "disks-changed",
      `Somebody has put another file in the place of ${replaced.join(", ")} while the guest was copied`,
      { advice: "Put the file that the guest has open back at its path, for both hosts, then migrate again" },
    );
  if (qmp.greeting.version.major < SETS_ACTIVE) return;
  const nodes = await qmp.execute("query-named-block-nodes", { flat: true });
  if (nodes.length === 0) return;
  try {
    await qmp.execute("blockdev-set-active", { active: true });
  } catch (thrown) {
    await letGoOfImages(guest);
    const { message } = MigrationFault.from(thrown);
    throw new MigrationFault("qemu-failed", `The destination's QEMU cannot use the guest's images: ${message}`, {
      cause: thrown,
      advice:
        "See that the destination may lock and write the images, and that nothing else holds them; then migrate again",
    });
  }
  await qmp.execute("blockdev-set-active", { active: false });
}

/**
 * Makes a QEMU from 10.0 on release the locks of the images, which the source may need. `keepsLocks` then tells whether
 * QEMU holds some of these locks all the same; only the end of QEMU releases those.
 */
export async function letGoOfImages(guest: HasImages): Promise<void> {
  if (guest.qmp.greeting.version.major < SETS_ACTIVE) return;
  await guest.qmp.execute("blockdev-set-active", { active: false }).catch(() => undefined);
  guest.keepsLocks = await hasLocks(guest.process.pid);
}

/** A line of /proc/PID/fdinfo for a lock by open file description. */
const LOCK = /^lock:.*\bOFDLCK\b/m;

/**
 * Tells whether a QEMU holds locks of images, the only files that it locks by open file descriptions (OFDLCK). The
 * answer is false for a process whose files neither this agent nor the guest's unit may look at.
 */
async function hasLocks(pid: number): Promise<boolean> {
  const folder = `/proc/${pid}/fdinfo`;
  const names = await readdir(folder).catch(() => undefined);
  if (names === undefined) return (await filesByUnit(pid))?.locks.some((line) => LOCK.test(line)) ?? false;
  const texts = await Promise.all(names.map((name) => readFile(join(folder, name), "utf8").catch(() => "")));
  return texts.some((text) => LOCK.test(text));
}
