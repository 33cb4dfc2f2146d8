/** Tests the names by which QEMU knows files. */
import t from "tap";
import { optionsOf } from "../../../../shared/qemu/inspect/guest-disks.ts";
import { pathOf, plain } from "../../../../shared/qemu/inspect/open-files.ts";

const json = (options: object): string => `json:${JSON.stringify(options)}`;
const FILE = { driver: "file", filename: "/images/web.raw" };

t.test("the file under formats and filters is found, and the other options of its node are read", async (t) => {
  const part = json({ driver: "raw", offset: 4096, file: FILE });
  t.equal(plain(part), "/images/web.raw");
  t.same(optionsOf(part), ["offset=4096"]);
  const throttled = json({ driver: "throttle", "throttle-group": "slow", file: { driver: "raw", file: FILE } });
  t.equal(pathOf(throttled), "/images/web.raw");
  t.same(optionsOf(throttled), ["throttle-group=slow", "file.driver=raw"]);
  const overlay = json({ driver: "qcow2", backing: { driver: "raw", file: FILE }, file: FILE });
  t.same(optionsOf(overlay), [], "the layers below are compared by themselves");
  t.same(optionsOf("/images/web.raw"), []);
});

t.test("a storage that is no file of the host has no path", async (t) => {
  const remote = json({ driver: "raw", file: { driver: "nbd", server: { host: "there" } } });
  for (const name of [remote, "nbd://there/web", "json:{", json({ driver: "quorum", children: [FILE] })]) {
    t.equal(pathOf(name), "", name);
    t.same(optionsOf(name), [], name);
  }
  t.equal(pathOf("file:/images/web.raw"), "/images/web.raw");
});
