/** Tests which files of two hosts count as the same disk. */
import t from "tap";
import { compareDisks, type DiskProofs } from "../../../shared/protocol/disks.ts";
import type { Drive, GuestDisks, Image } from "../../../shared/protocol/messages.ts";

const image: Image = {
  ...{ format: "raw", file: "/images/web.raw", byteLength: 1 << 20, writable: true },
  ...{ inode: "40:7", baseName: "web.raw" },
};
const of = (layers: readonly Partial<Image>[], boot = "one", more: Partial<Drive> = {}): GuestDisks => ({
  boot,
  drives: [
    { name: "d0", removable: false, place: "disk0", layers: layers.map((layer) => ({ ...image, ...layer })), ...more },
  ],
});
const NOTHING: DiskProofs = { marked: new Set(), unchecked: false };
const codes = (theirs: GuestDisks, mine: GuestDisks, proofs: Partial<DiskProofs> = {}) =>
  compareDisks(theirs, mine, { ...NOTHING, ...proofs }).refusals.map(({ code }) => code);

t.test("on one host a file is the same by whatever path, and another file is not", async (t) => {
  t.same(codes(of([{}]), of([{}])), []);
  t.same(codes(of([{}]), of([{ file: "/mnt/web.raw" }])), []);
  for (const unchecked of [false, true])
    t.same(
      codes(of([{}]), of([{ inode: "40:8" }]), { unchecked }),
      ["disks"],
      "no operator can answer for another file",
    );
});

t.test("on two hosts a file is the same where the source's mark is beside it", async (t) => {
  const [there, here] = [of([{}]), of([{ inode: "52:99" }], "two")];
  t.same(codes(there, here, { marked: new Set(["/images/web.raw"]) }), []);
  t.same(codes(there, here), ["disks-unproven"]);
  const { refusals, warnings } = compareDisks(there, here, { ...NOTHING, unchecked: true });
  t.same(refusals, []);
  t.match(warnings, [
    /^Drive d0 was not proven to be the same file on both hosts \(\/images\/web\.raw\), as you allowed$/,
  ]);
  t.same(
    codes(there, of([{ baseName: "db.raw" }], "two"), { unchecked: true }),
    ["disks"],
    "the file has another name",
  );
});

t.test("without a boot id, or without an open file, numbers prove nothing", async (t) => {
  t.same(codes(of([{}], ""), of([{}], "")), ["disks-unproven"]);
  t.same(codes(of([{ inode: "" }]), of([{}])), ["disks-unproven"]);
  const marked = new Set(["/images/web.raw"]);
  t.same(
    codes(of([{ inode: "" }]), of([{}], "two"), { marked }),
    ["disks-unproven"],
    "a mark proves nothing then either",
  );
});

t.test("a file to which nobody writes may be a copy", async (t) => {
  t.same(codes(of([{ writable: false }]), of([{ writable: false, inode: "1:1" }], "two")), []);
  const [base, top] = [{ writable: false }, {}];
  const marked = new Set(["/images/top.raw"]);
  const layers = (more: Partial<Image>, boot: string): GuestDisks =>
    of(
      [
        { ...top, file: "/images/top.raw" },
        { ...base, ...more },
      ],
      boot,
    );
  t.same(codes(layers({}, "one"), layers({ inode: "1:1" }, "two"), { marked }), []);
  t.same(codes(layers({}, "one"), layers({ inode: "1:1", writable: true }, "two"), { marked }), ["disks-unproven"]);
});

t.test("a drive that is read-only at one host only, or that belongs to another device, is refused", async (t) => {
  t.same(codes(of([{ writable: false }]), of([{}])), ["disks"]);
  t.same(codes(of([{}]), of([{ writable: false }])), ["disks"]);
  const elsewhere = of([{}], "one", { place: "disk1" });
  t.match(compareDisks(of([{}]), elsewhere, NOTHING).refusals, [
    { message: /^Drive d0 belongs to disk0 at the source, and to disk1 at the destination/ },
  ]);
  t.same(
    codes(of([{}], "one", { place: "" }), elsewhere),
    [],
    "an older source does not say to which device a drive belongs",
  );
});

t.test("block devices of two hosts are never proven to be the same, whatever their names", async (t) => {
  const device = (baseName: string, boot: string): GuestDisks =>
    of([{ file: "/dev/mapper/web", inode: "block 64771", baseName }], boot);
  t.same(codes(device("dm-3", "one"), device("dm-5", "two")), ["disks-unproven"]);
  t.same(codes(device("dm-3", "one"), device("dm-5", "two"), { unchecked: true }), []);
});

t.test("a memory file that both hosts share is refused", async (t) => {
  const memory = (inode: string, boot: string): GuestDisks => ({
    ...of([{}], boot),
    memory: [{ ...image, format: "ram0", file: "/shared/ram", inode, baseName: "ram" }],
  });
  t.same(codes(memory("40:9", "one"), memory("40:9", "one")), ["memory-shared"]);
  t.same(codes(memory("40:9", "one"), memory("40:8", "one")), [], "each QEMU has a file of its own");
  const marked = new Set(["/images/web.raw"]);
  t.same(codes(memory("40:9", "one"), memory("52:9", "two"), { marked }), []);
  const both = new Set(["/images/web.raw", "/shared/ram"]);
  t.same(codes(memory("40:9", "one"), memory("52:9", "two"), { marked: both }), ["memory-shared"]);
});

t.test("a disk with another number of layers, another format or length is another disk", async (t) => {
  const snapshot = [{ format: "qcow2", file: "/images/over.qcow2" }, { writable: false }];
  t.match(compareDisks(of(snapshot), of([{}]), NOTHING).refusals, [
    {
      message:
        /^Drive d0 is \/images\/over\.qcow2 \(qcow2, .*\) on \/images\/web\.raw .* at the source, and \/images\/web\.raw/,
    },
  ]);
  t.same(codes(of([{}]), of([{ byteLength: 2 << 20 }])), ["disks"]);
  t.same(codes(of([{}]), of([{ format: "qcow2" }])), ["disks"]);
  t.match(compareDisks(of([]), of([{}]), NOTHING).refusals, [
    { message: /^Drive d0 is without a medium at the source/ },
  ]);
});

t.test("a drive that only one of the two QEMUs has is named", async (t) => {
  const none = { boot: "one", drives: [] };
  t.match(compareDisks(of([{}]), none, NOTHING).refusals, [{ message: /^The guest has the drive d0, which/ }]);
  t.match(compareDisks(none, of([{}]), NOTHING).refusals, [
    { message: /^The destination's QEMU has the drive d0, which/ },
  ]);
  const idle = of([{ writable: false }], "one", { place: "" });
  t.same([...codes(idle, none), ...codes(none, idle)], [], "an unused read-only drive may be at one host only");
});

t.test("a storage that is no file is the same by its name, unless the name leads to its own host", async (t) => {
  const remote = (file: string): GuestDisks => of([{ file, inode: "", baseName: "" }]);
  t.same(codes(remote("rbd:pool/web"), { ...remote("rbd:pool/web"), boot: "two" }), []);
  t.same(codes(remote("rbd:pool/web"), remote("rbd:pool/db")), ["disks"]);
  for (const name of [
    "nbd+unix:///web?socket=/run/nbd",
    "nbd://localhost/web",
    "nbd://127.0.0.1/web",
    "nbd://[::1]/web",
  ])
    t.same(codes(remote(name), { ...remote(name), boot: "two" }), ["disks-unproven"], name);
});
