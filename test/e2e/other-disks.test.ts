/**
 * Moves a guest whose disks and devices need not be those of its definition any more. Each difference is refused by
 * name before anything is touched, or is found when the guest stands still. The media of removable drives are carried
 * to the destination.
 */
import { linkSync, mkdirSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { type HostAgents, startAgent } from "../support/agents.ts";
import { beginMerge, endMerge, takeSnapshot, tell } from "../support/block-jobs.ts";
import { migrate, requireMoved, startMigrate } from "../support/ferry-json.ts";
import type { GuestDefinitionFile } from "../support/guest.ts";
import { openPair, type Pair } from "../support/pair.ts";

t.setTimeout(600_000);
const NAME = "medley";
const WITHIN = { timeoutMs: 60_000 };
const BYTES = 1 << 20;
const WORKLOAD = { regionMiB: 16, rate: 20e6 };
/** The device of the drive d0: with if=none the option -drive makes none. */
const DISK = ["-device", "virtio-blk-pci,drive=d0,id=disk0"];

const drive = (file: string, more = ""): readonly string[] => [
  "-drive",
  `file=${file},format=raw,if=none,id=d0${more}`,
];

/**
 * QEMU's options for two disks, a drive for media, a bus with a device on it, and a bridge. The files are in a folder
 * that both hosts have.
 */
const arguments_ = (folder: string): readonly string[] => [
  ...[...drive(join(folder, "d.raw")), ...DISK],
  ...["-drive", `file=${join(folder, "one.iso")},format=raw,if=none,id=cd0,media=cdrom`],
  ...["-device", "ide-cd,drive=cd0,id=cd", "-device", "qemu-xhci,id=usb", "-device", "usb-tablet,id=tablet,port=4"],
  ...[
    "-drive",
    `file=${join(folder, "e.raw")},format=raw,if=none,id=d1`,
    "-device",
    "virtio-blk-pci,drive=d1,id=disk1",
  ],
  // a bridge with a device behind it: the bus behind the bridge has no number before the firmware gives it one
  ...["-device", "pcie-root-port,id=rp", "-device", "virtio-rng-pci,id=rng,bus=rp"],
];

/**
 * Migrates, and checks that the migration is refused and the guest is not touched. @returns each reason, as `code:
 * message`
 */
async function refused(t: Test, pair: Pair, options: readonly string[] = []): Promise<readonly string[]> {
  const { code, answer } = await migrate(pair.rig, pair.a, pair.b, NAME, options);
  t.match({ code, answer }, { code: 1, answer: { error: { code: "refused", guestNow: /not touched|runs at/ } } });
  return (answer.error?.refusals ?? []).map((one) => `${one.code}: ${one.message}`);
}

/** Calls `act` with a client of the guest's second monitor on a host. */
async function atMonitor(pair: Pair, host: HostAgents, act: (qmp: QmpClient) => Promise<unknown>): Promise<void> {
  const qmp = await pair.rig.observe(host.host, NAME);
  await act(qmp).finally(() => qmp.close());
}

/** A migration whose source waits in a state until it is told to go on. */
interface HeldMigration {
  /** The source's host, with the agent that waits. */
  readonly a: HostAgents;
  /** @returns how `ferry migrate` ended */
  goOn(): ReturnType<typeof migrate>;
}

/**
 * Starts a source agent on host a, where none runs, begins a migration from there, and waits until the agent holds the
 * migration in a state.
 */
async function holdAt({ rig, a, b }: Pair, state: string): Promise<HeldMigration> {
  const source = await startAgent(rig, rig.a, "source", [`--faults=hold-at=${state}`]);
  const held = { ...a, source };
  const run = await startMigrate(rig, held, b, NAME);
  await source.waitForOutput(new RegExp(`"held":"${state}"`), WITHIN);
  const goOn: HeldMigration["goOn"] = () => {
    source.signal("SIGUSR2");
    return run.end();
  };
  return { a: held, goOn };
}

t.test("the disks, media and devices that the guest has now are compared, whatever its definition says", async (t) => {
  const folder = t.testdir();
  for (const name of ["d.raw", "e.raw", "other.raw", "one.iso"]) writeFileSync(join(folder, name), Buffer.alloc(BYTES));
  const media = join(folder, "media");
  mkdirSync(media);
  for (const path of [join(media, "two.iso"), join(folder, "three.iso")]) writeFileSync(path, Buffer.alloc(BYTES));
  const pair = await openPair(t, {
    guest: { name: NAME, workload: WORKLOAD, extra: arguments_(folder) },
    flags: (_rig, _host, kind) => (kind === "destination" ? [`--guests-media=${media}`] : []),
  });
  const { rig, a, b, definition } = pair;
  const edited = (change: (word: string) => string, more: readonly string[] = []): GuestDefinitionFile => ({
    ...definition,
    command: [...definition.command.map(change), ...more],
  });

  await t.test("a definition that was edited while the guest runs is refused by name", async (t) => {
    rig.writeDefinition(edited((word) => word.replace("d.raw", "other.raw")));
    t.match(await refused(t, pair), [
      /^disks: Drive d0 is not the same file on both hosts: .*d\.raw at the source, .*other\.raw at the destination/,
    ]);
    rig.writeDefinition(edited((word) => word, ["-smp", "2", "-device", "virtio-rng-pci,id=extra"]));
    t.match(await refused(t, pair), [
      /^devices: The devices differ: the destination's QEMU has extra \(virtio-rng-pci\), qemu64-x86_64-cpu, which the guest lacks/,
    ]);
    rig.writeDefinition(definition);
  });

  await t.test("a definition with another place, drive or setting of a device is refused by name", async (t) => {
    const swapped: Readonly<Record<string, string>> = {
      "virtio-blk-pci,drive=d0,id=disk0": "virtio-blk-pci,drive=d1,id=disk1",
      "virtio-blk-pci,drive=d1,id=disk1": "virtio-blk-pci,drive=d0,id=disk0",
    };
    for (const [change, ...found] of [
      [(word: string) => swapped[word] ?? word, /^devices: The devices have other settings at .*: addr of disk[01] is/],
      [
        (word: string) => word.replace(/drive=d([01])/, (_, at) => `drive=d${1 - Number(at)}`),
        /^disks: Drive d0 belongs to disk0\/virtio-blk-device at the source, and to disk1\/virtio-blk-device at/,
        /^disks: Drive d1 belongs to disk1/,
      ],
      [
        (word: string) => word.replace(",id=disk0", ",id=disk0,num-queues=4"),
        /: .*num-queues of disk0\/.* is 1 .* and 4 /,
      ],
      [(word: string) => word.replace("if=none,id=d0", "if=none,id=d0,readonly=on"), /^disks: .* only at the source/],
    ] as const) {
      rig.writeDefinition(edited(change));
      t.match(await refused(t, pair), found);
    }
    rig.writeDefinition(definition);
  });

  await t.test("a device that was plugged since the guest's start is refused by name", async (t) => {
    await atMonitor(pair, a, (qmp) => tell(qmp, "device_add", { driver: "usb-tablet", id: "plugged", bus: "usb.0" }));
    t.match(await refused(t, pair), [
      /^devices: The devices differ: the guest has plugged \(usb-tablet\), which the destination's QEMU lacks/,
    ]);
    await atMonitor(pair, a, (qmp) => tell(qmp, "device_del", { id: "plugged" }));
  });

  await t.test("a snapshot taken since the guest's start is refused, and so is the job that merges it", async (t) => {
    await atMonitor(pair, a, async (qmp) => {
      await takeSnapshot(qmp, "d0", join(folder, "over.qcow2"));
      t.match(await refused(t, pair), [
        /^disks: Drive d0 is .*over\.qcow2 \(qcow2.* on .*d\.raw .* at the source, and .*d\.raw .* at the destination/,
      ]);
      await beginMerge(qmp, "d0");
      t.match(await refused(t, pair), [/^block-job: A block job is at work on the guest's disks \(commit of merge\)/]);
      await endMerge(qmp);
    });
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
  });

  await t.test("a snapshot taken while the guest is copied ends the migration, and the guest stays", async (t) => {
    await a.source.stop();
    const held = await holdAt(pair, "switching");
    await atMonitor(pair, a, (qmp) => takeSnapshot(qmp, "d0", join(folder, "late.qcow2")));
    const { code, answer } = await held.goOn();
    const message = /d0 was .*d\.raw.* and is .*late\.qcow2/;
    const error = { code: "disks-changed", message, guestNow: "the guest runs at the source" };
    t.match({ code, answer }, { code: 1, answer: { status: "failed", error } });
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
    await atMonitor(pair, a, async (qmp) => {
      await beginMerge(qmp, "d0");
      await endMerge(qmp);
    });
    await held.a.source.stop();
  });

  await t.test("a block job that begins while the guest is copied ends the migration", async (t) => {
    const held = await holdAt(pair, "switching");
    await atMonitor(pair, a, async (qmp) => {
      await takeSnapshot(qmp, "d0", join(folder, "job.qcow2"));
      await beginMerge(qmp, "d0");
    });
    const { code, answer } = await held.goOn();
    // QEMU either releases the images all the same, or fails its migration
    const message = /Somebody has changed the guest's disks while it was copied: .*\(commit of merge\)/;
    const error = { code: "disks-changed", message, guestNow: "the guest runs at the source" };
    t.match({ code, answer }, { code: 1, answer: { status: "failed", error } });
    await atMonitor(pair, a, endMerge);
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
    await held.a.source.stop();
  });

  await t.test("another file that is put at the path of the disk ends the migration", async (t) => {
    const held = await holdAt(pair, "switching");
    const [path, kept] = [join(folder, "d.raw"), join(folder, "kept.raw")];
    linkSync(path, kept);
    writeFileSync(join(folder, "new.raw"), Buffer.alloc(BYTES));
    renameSync(join(folder, "new.raw"), path);
    const { code, answer } = await held.goOn();
    const error = { code: "disks-changed", message: /another file in the place of .*d\.raw/ };
    t.match({ code, answer }, { code: 1, answer: { status: "failed", error } });
    t.match(answer.error?.guestNow, /runs at the source/);
    t.match(await refused(t, { ...pair, a: held.a }), [/^image-temporary: .*d\.raw/, /^disks-unproven: /]);
    renameSync(kept, path);
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
    await held.a.source.stop();
  });

  await t.test("a device that is unplugged after the handshake ends the migration", async (t) => {
    const held = await holdAt(pair, "staging");
    await atMonitor(pair, a, (qmp) => tell(qmp, "device_del", { id: "tablet" }));
    const { code, answer } = await held.goOn();
    const message = /peripheral\/tablet \(usb-tablet\) is gone/;
    const error = { code: "devices-changed", message, guestNow: "the guest runs at the source" };
    t.match({ code, answer }, { code: 1, answer: { status: "failed", error } });
    await atMonitor(pair, a, (qmp) => tell(qmp, "device_add", { driver: "usb-tablet", id: "tablet", port: "4" }));
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
    await held.a.source.stop();
  });

  await startAgent(rig, rig.a, "source");
  const changed = { id: "cd", filename: join(media, "two.iso"), format: "raw" };

  await t.test("a medium in no directory of guests.media is refused, and the guest keeps it", async (t) => {
    const elsewhere = { ...changed, filename: join(folder, "three.iso") };
    await atMonitor(pair, a, (qmp) => tell(qmp, "blockdev-change-medium", elsewhere));
    for (const options of [[], ["--shared-disks-unchecked"]])
      t.match(await refused(t, pair, options), [/^medium: .*three\.iso in drive cd0 now.*guests\.media/]);
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
  });

  for (const [what, from, to, command, given, wanted] of [
    ["changed", a, b, "blockdev-change-medium", changed, "two.iso"],
    ["ejected", b, a, "eject", { id: "cd", force: true }, undefined],
  ] as const)
    await t.test(`a medium that was ${what} is the same at the destination`, async (t) => {
      await atMonitor(pair, from, (qmp) => tell(qmp, command, given));
      requireMoved(await migrate(rig, from, to, NAME));
      await assertOneGuest(t, rig, { name: NAME, at: to.host });
      await atMonitor(pair, to, async (qmp) => {
        const found = (await qmp.execute("query-block")).find(({ device }) => device === "cd0");
        t.equal(found?.inserted?.image.filename.replace(/^.*\//, ""), wanted);
      });
      t.same(
        readdirSync(folder).filter((name) => name.startsWith(".ferry")),
        [],
        "no mark is left beside the images",
      );
    });
});

t.test("a disk that only one host has is refused, even if the operator answers for shared disks", async (t) => {
  const pair = await openPair(t, {
    guest: { name: NAME, workload: WORKLOAD, extra: [...drive("{runtime}/own.raw"), ...DISK] },
    prepare: ({ a, b }) => {
      for (const { runtimeDirectory } of [a, b]) writeFileSync(join(runtimeDirectory, "own.raw"), Buffer.alloc(BYTES));
    },
  });
  for (const options of [[], ["--shared-disks-unchecked"]])
    t.match(await refused(t, pair, options), [/^disks: Drive d0 is not the same file on both hosts/]);
  await assertOneGuest(t, pair.rig, { name: NAME, at: pair.rig.a, beside: ["own.raw"] });
});

t.test("a drive with snapshot=on, whose writes are lost with its QEMU, is refused", async (t) => {
  const folder = t.testdir();
  writeFileSync(join(folder, "d.raw"), Buffer.alloc(BYTES));
  const extra = [...drive(join(folder, "d.raw"), ",snapshot=on"), ...DISK];
  const pair = await openPair(t, { guest: { name: NAME, workload: WORKLOAD, extra } });
  t.match((await refused(t, pair)).join("\n"), /^image-temporary: .*This is so for a drive with snapshot=on/);
  await assertOneGuest(t, pair.rig, { name: NAME, at: pair.rig.a });
});
