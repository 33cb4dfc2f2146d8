/** Tests when the source's mark beside an image proves that the image is the source's. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { markedImages } from "../../../agent-destination/guest/marked-images.ts";
import { markDisks } from "../../../agent-source/guest/disk-mark.ts";
import type { GuestDisks } from "../../../shared/protocol/messages.ts";
import { atTeardown } from "../../support/teardown.ts";

const isRoot = process.getuid?.() === 0;

const disks = (file: string): GuestDisks => ({
  boot: "one",
  drives: [
    {
      ...{ name: "d0", removable: false, place: "disk0" },
      layers: [{ format: "raw", file, byteLength: 1, writable: true, inode: "1:1", baseName: "d.raw" }],
    },
  ],
});

t.test("the destination finds the mark beside the image, until the source removes it", async (t) => {
  const folder = t.testdir({ "d.raw": "" });
  const image = disks(join(folder, "d.raw"));
  const { mark, remove } = await markDisks(image, "one");
  t.same([...(await markedImages(image, mark))], [join(folder, "d.raw")]);
  await remove();
  t.same([...(await markedImages(image, mark))], []);
  t.same(readdirSync(folder), ["d.raw"]);
});

/** Mounts, acts and unmounts. The mount must end before the test does, since its directory is removed then. */
async function mounted(places: readonly string[], args: readonly string[], act: () => Promise<void>): Promise<void> {
  execFileSync("mount", args, { stdio: "pipe" });
  const forget = atTeardown(() => unmount(places));
  await act().finally(() => {
    forget();
    unmount(places);
  });
}

const unmount = (places: readonly string[]): void => {
  for (const place of places) execFileSync("umount", ["--lazy", place], { stdio: "pipe" });
};

t.test("a mark proves nothing for an image that is mounted over another one", { skip: !isRoot }, async (t) => {
  const folder = t.testdir({ "d.raw": "", own: { "d.raw": "" } });
  const [path, own] = [join(folder, "d.raw"), join(folder, "own", "d.raw")];
  const { mark, remove } = await markDisks(disks(path), "one");
  await mounted([path], ["--bind", own, path], async () => {
    t.same([...(await markedImages(disks(path), mark))], [], "the mark proves nothing at the destination");
    await remove();
    t.equal((await markDisks(disks(path), "two")).mark, undefined, "no mark is made at the source");
  });
});

t.test("a mark proves nothing on an overlay, whose writes stay on this host", { skip: !isRoot }, async (t) => {
  const folder = t.testdir({ lower: { "d.raw": "" }, scratch: {}, merged: {} });
  const [lower, scratch, merged] = [join(folder, "lower"), join(folder, "scratch"), join(folder, "merged")];
  const { mark, remove } = await markDisks(disks(join(lower, "d.raw")), "one");
  // the directory of the tests may itself be an overlay, to which another overlay cannot write
  await mounted([scratch], ["-t", "tmpfs", "tmpfs", scratch], async () => {
    const [upper, work] = [join(scratch, "upper"), join(scratch, "work")];
    mkdirSync(upper);
    mkdirSync(work);
    const options = `lowerdir=${lower},upperdir=${upper},workdir=${work}`;
    await mounted([merged], ["-t", "overlay", "overlay", "-o", options, merged], async () => {
      t.ok(existsSync(join(merged, mark?.name ?? "")), "the mark shows through the overlay");
      t.same([...(await markedImages(disks(join(merged, "d.raw")), mark))], []);
    });
  });
  await remove();
});
