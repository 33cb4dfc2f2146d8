/**
 * Tests the rig on which the other tests move guests: its guests, QEMU's own migrations over its network, the
 * comparison of two memories, and that nothing is left when it is closed.
 */
import t from "tap";
import { compareMemory } from "../support/compare-memory.ts";
import { guestDefinition } from "../support/guest.ts";
import { findWorkloadPage, readMemory, writeMemory } from "../support/guest-memory.ts";
import { migrateWithQemu } from "../support/qemu-baseline.ts";
import { Rig } from "../support/rig.ts";
import { longestPause } from "../support/serial.ts";

t.setTimeout(180_000);
const BOOT = { timeoutMs: 60_000 };

t.test("a guest dirties its memory at the rate asked for, and QEMU's own migrations carry it", async (t) => {
  const rig = await Rig.open();
  t.teardown(() => rig.close());
  const definition = guestDefinition({ name: "busy", memoryMiB: 256, workload: { regionMiB: 64, rate: 100e6 } });
  const guest = await rig.startGuest(rig.a, definition);

  await t.test("a guest boots, dirties its memory at the rate asked for and finds it whole", async (t) => {
    const first = await guest.serial.waitForBeat(() => true, BOOT);
    const later = await guest.serial.waitForBeat(({ beat }) => beat >= first.beat + 20, BOOT);
    const rate = ((later.pages - first.pages) * 4096e6) / (later.monoUs - first.monoUs);
    t.ok(rate > 80e6 && rate < 120e6, `the guest dirties ${(rate / 1e6).toFixed(0)} MB/s of 100`);
    t.ok(later.wordsChecked > first.wordsChecked, "the guest checks its memory");
    t.equal(later.errors, 0);
    t.same(guest.serial.corruptions(), []);
    t.equal(rig.qemus().length, 1);
  });

  const cannotShape = rig.network.kind === "loopback" && "the rate of a loopback cannot be set";
  await t.test("a migration that is given up leaves the guest where it was", { skip: cannotShape }, async (t) => {
    await rig.network.setRate(100e6);
    const stayed = await migrateWithQemu({ rig, guest, definition, method: "plain", giveUpAfterMs: 1500 });
    t.equal(stayed.completed, false);
    t.equal(stayed.guest.host.name, "a");
    const beat = await stayed.guest.serial.waitForBeats(5, BOOT);
    t.equal(beat.errors, 0);
    t.equal(rig.qemus().length, 1);
    await rig.network.setRate(1e9);
  });

  await t.test("QEMU's own xbzrle migration carries the guest and its memory from host to host", async (t) => {
    const moved = await migrateWithQemu({ rig, guest, definition, method: "xbzrle", giveUpAfterMs: 60_000 });
    t.equal(moved.completed, true);
    t.equal(moved.guest.host.name, "b");
    t.ok(moved.bytesOnWire > 64 << 20, "at least the pattern crossed the link");
    const beat = await moved.guest.serial.waitForBeats(20, BOOT);
    t.equal(beat.errors, 0);
    t.same(moved.guest.serial.corruptions(), []);
    const pause = longestPause(guest.serial, moved.guest.serial);
    t.ok(pause.seenMs >= moved.downtimeMs!, "the pause is seen from outside, by the guest's heartbeats");
    t.equal(rig.qemus().length, 1, "one QEMU is left");
  });
});

t.test("a guest whose memory is changed from outside says so", async (t) => {
  const rig = await Rig.open();
  t.teardown(() => rig.close());
  const definition = guestDefinition({ name: "hurt", memoryMiB: 128, workload: { regionMiB: 16, rate: 50e6 } });
  const guest = await rig.startGuest(rig.a, definition);
  await guest.serial.waitForBeat(({ beat }) => beat >= 5, BOOT);
  const monitor = await rig.observe(rig.a, "hurt");
  const address = await findWorkloadPage(monitor, { memoryMiB: 128, folder: rig.folder });
  // word 100 of a page is not one that the guest changes, so only the samples of its walk and its sweep find the change
  await writeMemory(monitor, address + 800, Buffer.from("not what it was!"), { folder: rig.folder });
  const beat = await guest.serial.waitForBeat(({ errors }) => errors > 0, BOOT);
  t.equal(beat.errors, 2, "two words are wrong");
  t.match(guest.serial.corruptions(), [/CORRUPT page=\d+ version=\d+ offset=800 .*got=7461687720746f6e/, /offset=808/]);
  t.equal((await guest.serial.waitForBeats(20, BOOT)).errors, 2, "nothing else is wrong");
});

t.test("memory is written to a stopped guest without starting it", async (t) => {
  const rig = await Rig.open();
  t.teardown(() => rig.close());
  const guest = guestDefinition({ name: "still", memoryMiB: 128, workload: { regionMiB: 16 } });
  await rig.startGuest(rig.a, guest, ["-S"]);
  const monitor = await rig.observe(rig.a, "still");
  const place = 64 << 20;
  await writeMemory(monitor, place, Buffer.from("ferry"), { folder: rig.folder });
  const read = await readMemory(monitor, place, 8, { folder: rig.folder });
  t.equal(read.toString("latin1"), "ferry\0\0\0");
  t.equal((await monitor.execute("query-status")).running, false);
});

t.test("the comparison of two guests' memory finds every page that differs", async (t) => {
  const rig = await Rig.open();
  t.teardown(() => rig.close());
  const definition = guestDefinition({ name: "twin", memoryMiB: 128, workload: { regionMiB: 16, rate: 20e6 } });
  await rig.startGuest(rig.a, definition);
  await rig.serial(rig.a, "twin").waitForBeat(() => true, BOOT);
  // this guest is never started: its memory is what the machine's reset has left
  await rig.startGuest(rig.b, definition, ["-S"]);
  const [booted, fresh] = [await rig.observe(rig.a, "twin"), await rig.observe(rig.b, "twin")];
  await booted.execute("stop");
  const options = { memoryMiB: 128, folder: rig.folder };
  const same = await compareMemory(booted, booted, options);
  t.same(same.differing, []);
  t.ok(same.nonZeroPages > 4096, "the guest's pattern is in its memory");
  const other = await compareMemory(booted, fresh, options);
  t.ok(other.differing.length >= 4096, "the pattern is not in a guest that never ran");
});

t.test("a rig leaves nothing behind, not even what its programs started", async (t) => {
  const rig = await Rig.open();
  await rig.spawn(rig.a, "parent", ["sh", "-c", "sleep 1000 & sleep 1000"]);
  const definition = guestDefinition({ name: "left", memoryMiB: 128, workload: { regionMiB: 16 } });
  await rig.startGuest(rig.b, definition);
  // a process that is just becoming QEMU has no command line, so the test waits until QEMU answers
  await rig.observe(rig.b, "left");
  await t.rejects(rig.assertNothingLeft(), /process \d+: .*qemu-system/);
  await rig.close();
  await rig.assertNothingLeft();
  t.same(rig.processes(), []);
});
