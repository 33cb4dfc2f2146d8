/**
 * Tests what keeps a guest from its images, and what QEMU says of it, with real QEMUs and an image that is mounted
 * twice.
 */
import t from "tap";
import { letGoOfImages, tryImages } from "../../../agent-destination/guest/guest-images.ts";
import type { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import { tell } from "../../support/block-jobs.ts";
import { loadedQemu, mountedDisk, startQemu } from "../../support/loaded-qemu.ts";

t.setTimeout(120_000);
const skip = process.getuid?.() !== 0 && "needs root, to mount";
const statusOf = async (qmp: QmpClient): Promise<string> => (await qmp.execute("query-status")).status;

t.test("an image that is free is tried, and released again", { skip }, async (t) => {
  const disk = mountedDisk(t);
  const { guest, source } = await loadedQemu(t, disk);
  await tryImages(guest);
  t.equal(await statusOf(guest.qmp), "paused");
  await source.execute("cont");
  t.equal(await statusOf(source), "running", "the source can have the image back");
});

t.test(
  "the trial of an image that another QEMU has locked fails with QEMU's words, and leaves nothing",
  { skip },
  async (t) => {
    const disk = mountedDisk(t);
    const { guest } = await loadedQemu(t, disk);
    const { qemu } = await startQemu(t, disk.here, ["-S"]);
    const error = {
      code: "qemu-failed",
      message: /cannot use the guest's images: .*"write" lock/,
      advice: /lock and write/,
    };
    await t.rejects(tryImages(guest), error);
    t.equal(await statusOf(guest.qmp), "paused");
    t.equal(guest.keepsLocks, false);
    await qemu.stop();
    await tryImages(guest);
  },
);

t.test("where an image's owner lets others write, QEMU fails, and keeps a part of the locks", { skip }, async (t) => {
  const disk = mountedDisk(t);
  const { guest } = await loadedQemu(t, disk);
  const { qmp: other, socket } = await startQemu(t, undefined, ["-S"]);
  await tell(other, "nbd-server-start", { addr: { type: "unix", data: { path: `${socket}.nbd` } } });
  await tell(other, "blockdev-add", { driver: "file", "node-name": "image", filename: disk.here });
  await tell(other, "block-export-add", { id: "export", type: "nbd", "node-name": "image", writable: true });
  await t.rejects(tryImages(guest), { message: /shared "write" lock/ });
  t.equal(guest.keepsLocks, true, "QEMU reports the image as inactive, and still has the lock of a writer");
});

t.test("the trial of an image on a read-only file system fails with QEMU's words", { skip }, async (t) => {
  const disk = mountedDisk(t);
  const { guest } = await loadedQemu(t, disk);
  disk.setReadOnly(true);
  await t.rejects(tryImages(guest), { code: "qemu-failed", message: /Read-only file system/ });
  disk.setReadOnly(false);
  await tryImages(guest);
});

t.test("a guest without images has nothing to be tried", async (t) => {
  const { guest } = await loadedQemu(t);
  await tryImages(guest);
  await letGoOfImages(guest);
  t.equal(await statusOf(guest.qmp), "paused");
});

t.test("a cont that QEMU refuses does not run the guest, and succeeds once the lock is free", { skip }, async (t) => {
  const disk = mountedDisk(t);
  const { guest } = await loadedQemu(t, disk);
  const { qemu } = await startQemu(t, disk.here, ["-S"]);
  const resumed: string[] = [];
  guest.onResume(() => void resumed.push("resumed"));
  t.match(await guest.cont(guest.qmp), { refusal: /"write" lock/ });
  t.equal(await statusOf(guest.qmp), "paused");
  await qemu.stop();
  t.same(await guest.cont(guest.qmp), { refusal: undefined });
  t.equal(await statusOf(guest.qmp), "running");
  t.same(resumed, ["resumed"]);
  t.same(await guest.cont(guest.qmp), { refusal: undefined }, "cont is not said to a guest that runs");
});

t.test("after a refusal the images belong to the source again", { skip }, async (t) => {
  const disk = mountedDisk(t);
  const { guest, source } = await loadedQemu(t, disk);
  disk.setReadOnly(true);
  t.match(await guest.cont(guest.qmp), { refusal: /Read-only file system/ });
  await letGoOfImages(guest);
  await source.execute("cont");
  t.equal(await statusOf(source), "running");
});
