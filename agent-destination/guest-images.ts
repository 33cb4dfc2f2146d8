/**
 * The images of a guest that waits here. QEMU opens the images of an incoming guest inactive: not locked, and not for
 * writing. From QEMU 10.0 on `cont` activates them. Where another program holds a lock on an image, or the file system
 * is read-only, that activation is what fails, and `cont` with it.
 */
import { MigrationFault } from "../shared/fault.ts";
import type { QmpClient } from "../shared/qemu/qmp-client.ts";

/**
 * First major version of QEMU with `blockdev-set-active`; older versions activate the images when they have loaded the
 * guest.
 */
const SETS_ACTIVE = 10;

/**
 * Activates the images as `cont` will do, and deactivates them again, while the source can still take them back. It
 * takes some milliseconds at most, and does nothing for a guest without images.
 * @throws MigrationFault `qemu-failed` with QEMU's words
 */
export async function tryImages(qmp: QmpClient): Promise<void> {
  if (qmp.greeting.version.major < SETS_ACTIVE) return;
  const nodes = await qmp.execute("query-named-block-nodes", { flat: true });
  if (nodes.length === 0) return;
  try {
    await qmp.execute("blockdev-set-active", { active: true });
  } catch (thrown) {
    await letGoOfImages(qmp);
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
 * Releases the locks of the images, which the source may need. Where this fails, the end of the QEMU releases them.
 */
export async function letGoOfImages(qmp: QmpClient): Promise<void> {
  if (qmp.greeting.version.major < SETS_ACTIVE) return;
  await qmp.execute("blockdev-set-active", { active: false }).catch(() => undefined);
}
