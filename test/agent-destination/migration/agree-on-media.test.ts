/** Tests which files of this host a source can have put into the drives of a guest that it offers. */
import { execFileSync } from "node:child_process";
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import t, { type Test } from "tap";
import { agreeOnMedia } from "../../../agent-destination/migration/agree-on-media.ts";
import type { DestinationFacts } from "../../../shared/protocol/handshake.ts";
import type { GuestOffer, Image } from "../../../shared/protocol/messages.ts";
import { readDisks } from "../../../shared/qemu/inspect/guest-disks.ts";
import { createLogger } from "../../../shared/runtime/log/log.ts";
import { FakeDrives, type FakeMedium } from "../../support/fake-drives.ts";
import { host, offer } from "../../support/handshake-fixtures.ts";
import { folder } from "../../support/link-fixtures.ts";

const BYTES = 4096;

type Media = Readonly<Record<string, FakeMedium | undefined>>;

interface Asked {
  /** The medium that the source says of each drive; a drive that is not named has the medium of the definition. */
  readonly media: Readonly<Record<string, (FakeMedium & { readonly byteLength?: number }) | undefined>>;
  readonly dryRun?: boolean;
  readonly guest?: Partial<GuestOffer>;
  readonly facts?: Partial<DestinationFacts>;
}

/**
 * Makes a host with a directory `media`, which its setting lists, and one beside it, and a QEMU with the drives cd0,
 * cd1 and fd0 of a definition.
 */
async function start(t: Test) {
  const at = folder(t);
  for (const name of ["media", "beside"]) mkdirSync(join(at, name));
  for (const name of ["media/two.iso", "beside/one.iso", "beside/three.iso", "beside/floppy.img", "beside/key.pem"])
    writeFileSync(join(at, name), Buffer.alloc(BYTES));
  const definition: Media = {
    cd0: { file: join(at, "beside/one.iso") },
    cd1: { file: join(at, "beside/three.iso") },
    fd0: { file: join(at, "beside/floppy.img"), writable: true },
  };
  const drives = new FakeDrives(t, definition);
  const qmp = await drives.connect(t);
  const config = { mediaDirectories: [join(at, "media")] };
  const parts = { config, log: createLogger("test", "silent") };
  const disks = await readDisks(qmp, process.pid);
  /**
   * Offers the guest to a QEMU with the media of the definition. @returns the media that the QEMU has then, or each
   * reason of the refusal as `code: message`
   */
  const ask = async ({ media, dryRun = false, guest = {}, facts = {} }: Asked) => {
    drives.said.length = 0;
    for (const [name, medium] of Object.entries(definition)) drives.put(name, medium);
    const given = { ...definition, ...media };
    const offered = Object.entries(given).map(([name, medium]) => ({
      ...{ name, removable: true, place: "" },
      layers: medium === undefined ? [] : [imageOf(medium)],
    }));
    const asked = { ...offer, dryRun, guest: { ...offer.guest, disks: { boot: "b", drives: offered }, ...guest } };
    const own = { ...host, ...facts, guest: { ...offer.guest, devices: [], disks } };
    const unchecked = { ...asked, guest: { disksUnchecked: true, ...asked.guest } };
    const judged = await agreeOnMedia(
      unchecked,
      own,
      disks,
      { qmp, process: { pid: process.pid, identity: "" } },
      parts,
    );
    const { agreement } = judged;
    return agreement.kind === "refusals"
      ? agreement.refusals.map(({ code, message }) => `${code}: ${message}`)
      : Object.fromEntries((judged.disks?.drives ?? []).map(({ name, layers }) => [name, layers[0]?.file]));
  };
  return { at, drives, definition, ask };
}

const imageOf = ({
  file,
  format = "raw",
  writable = false,
  byteLength = BYTES,
}: Partial<Image> & FakeMedium): Image => ({
  ...{ file, format, writable, byteLength, inode: "1:2" },
  baseName: basename(file),
});

const DRY_OR_NOT = [true, false];

t.test("no file of the host but those that are allowed reaches QEMU, and nothing is told of it", async (t) => {
  const { at, drives, ask } = await start(t);
  symlinkSync(join(at, "beside"), join(at, "media/out"));
  symlinkSync(join(at, "beside/key.pem"), join(at, "media/key.iso"));
  execFileSync("mkfifo", [join(at, "media/pipe")]);
  mkdirSync(join(at, "media/folder"));
  const two = join(at, "media/two.iso");
  const named = [
    ...["beside/key.pem", "beside/absent", "media/../beside/key.pem", "media/out/key.pem", "media/out/absent"],
    ...["media/key.iso", "media/absent", "media/pipe", "media/folder", "media", "media-too/two.iso", "media//two.iso"],
  ].map((name) => ({ file: `${at}/${name}` }));
  const media: (FakeMedium & { readonly byteLength?: number })[] = [
    ...named,
    ...["/etc/passwd", "/proc/self/environ", "/dev/null", "/dev/fdset/1", "", "two.iso", "media/two.iso"].map(
      (file) => ({
        file,
      }),
    ),
    ...[`file:${two}`, `json:{"driver":"raw","file":{"driver":"file","filename":"${two}"}}`, "fat:rw:/etc"].map(
      (file) => ({
        file,
      }),
    ),
    ...["nbd://127.0.0.1/x", "nbd:unix:/run/x", "http://192.0.2.1/x", "ssh://h/x", "host_cdrom:/dev/sr0"].map(
      (file) => ({
        file,
      }),
    ),
    ...["qcow2", "raw offset=0", "vmdk", "", "json:{}"].map((format) => ({ file: two, format })),
    { file: two, writable: true },
    { file: join(at, "beside/one.iso"), writable: true },
    { file: join(at, "beside/three.iso"), format: "qcow2" },
    { file: join(at, "beside/key.pem"), byteLength: 1 },
  ];
  for (const medium of media)
    for (const dryRun of DRY_OR_NOT) {
      const said = await ask({ media: { cd0: medium, cd1: undefined }, dryRun });
      t.match(said, [/^medium: .* in drive cd0 now, which may not be put in .*guests\.media/], JSON.stringify(medium));
      t.equal(said.length, 1);
      t.same(drives.said, [], "nothing is changed, and the other drive is not emptied");
    }
});

t.test("a refusal has the same words for a file that is there and for one that is not", async (t) => {
  const { at, ask } = await start(t);
  symlinkSync(join(at, "beside/new.pem"), join(at, "media/link.iso"));
  for (const name of ["beside/new.pem", "media/link.iso"]) {
    const asked = (byteLength: number) => ask({ media: { cd0: { file: join(at, name), byteLength } } });
    rmSync(join(at, "beside/new.pem"), { force: true });
    const absent = await asked(1);
    writeFileSync(join(at, "beside/new.pem"), Buffer.alloc(BYTES));
    t.same(await asked(1), absent);
    t.same(await asked(BYTES), absent);
  }
});

t.test("a medium in a directory of guests.media is put in, for reading only", async (t) => {
  const { at, drives, ask } = await start(t);
  const file = join(at, "media/two.iso");
  for (const dryRun of DRY_OR_NOT) {
    t.match(await ask({ media: { cd0: { file } }, dryRun }), { cd0: file, cd1: /three\.iso$/ });
    const change = { id: "qdev-cd0", filename: file, format: "raw", force: true, "read-only-mode": "read-only" };
    t.same(drives.said, [{ execute: "blockdev-change-medium", arguments: change }]);
  }
  const link = join(at, "media/link.iso");
  symlinkSync("two.iso", link);
  t.match(
    await ask({ media: { cd0: { file: link } } }),
    [/^disks: Drive cd0 is not the same file/],
    "another base name",
  );
  t.equal(drives.said.length, 1, "a link within the directory is followed");
});

t.test("a medium of the definition may be in another drive, and is written to only where it says so", async (t) => {
  const { drives, definition, ask } = await start(t);
  const swapped = { cd0: definition.cd1, cd1: definition.cd0 };
  t.match(await ask({ media: swapped }), { cd0: /three\.iso$/, cd1: /one\.iso$/, fd0: /floppy\.img$/ });
  const floppy = definition.fd0?.file ?? "";
  t.match(await ask({ media: { fd0: { file: floppy } } }), { fd0: /floppy\.img$/ });
  t.match(drives.said, [{ arguments: { filename: floppy, "read-only-mode": "read-only" } }]);
  t.match(await ask({ media: { cd1: { file: floppy, writable: true }, fd0: undefined } }), { cd1: floppy });
  t.match(drives.said, [{ execute: "eject" }, { arguments: { "read-only-mode": "read-write" } }]);
});

t.test("a drive that is empty at the source is emptied, and for a check is only counted as empty", async (t) => {
  const { drives, ask } = await start(t);
  t.match(await ask({ media: { cd0: undefined }, dryRun: true }), { cd0: undefined, cd1: /three\.iso$/ });
  t.same(drives.said, []);
  t.match(await ask({ media: { cd0: undefined } }), { cd0: undefined, cd1: /three\.iso$/ });
  t.same(drives.said, [{ execute: "eject", arguments: { id: "qdev-cd0", force: true } }]);
});

t.test("an offer that is refused for another reason changes no medium", async (t) => {
  const { at, drives, ask } = await start(t);
  const media = { cd0: { file: join(at, "media/two.iso") }, cd1: undefined };
  t.match(await ask({ media, guest: { cpuModel: "other" } }), [/^cpu-model: /]);
  t.match(await ask({ media, facts: { refusals: [{ code: "free-memory", message: "none" }] } }), ["free-memory: none"]);
  const third = { file: join(at, "beside/key.pem") };
  t.match(await ask({ media: { ...media, fd0: third } }), [/^medium: .* in drive fd0 /]);
  t.same(drives.said, []);
});

t.test("a file that somebody exchanges after the look is noticed, and the offer is refused", async (t) => {
  const { at, drives, ask } = await start(t);
  const file = join(at, "media/two.iso");
  drives.beforeOpen = (opened) => {
    if (opened !== file) return;
    renameSync(file, `${file}.kept`);
    symlinkSync(join(at, "beside/key.pem"), file);
  };
  t.match(await ask({ media: { cd0: { file } } }), [/^medium: Drive cd0 was not seen to have the file/]);
});

t.test("what QEMU says against a medium is a reason of the refusal", async (t) => {
  const { at, drives, ask } = await start(t);
  drives.error = "Could not open it: Permission denied";
  const said = await ask({ media: { cd0: { file: join(at, "media/two.iso") } } });
  t.match(said, [/^disks: .*two\.iso in drive cd0 now, .*Permission denied/, /^disks: Drive cd0 is not the same file/]);
});
