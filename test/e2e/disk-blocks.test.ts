/**
 * Moves a guest that writes numbered blocks to a disk which both hosts reach, and that compares each block before it
 * writes the next version of the block. What the guest wrote before a migration, and while it was moved, is on the disk
 * afterwards.
 */
import { closeSync, copyFileSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { assertOneGuest } from "../support/after-migration.ts";
import { type HostAgents, startAgent } from "../support/agents.ts";
import { BLOCK_BYTES, blockDisk, blockOfWrite, makeDiskImage, wrongBlocks } from "../support/disk-image.ts";
import { migrate, requireMoved, startMigrate } from "../support/ferry-json.ts";
import { ImageLocker } from "../support/image-locker.ts";
import { openPair, type Pair } from "../support/pair.ts";
import type { DiskBeat } from "../support/serial.ts";

t.setTimeout(300_000);
const NAME = "writer";
const DISK_MIB = 4;
const BLOCKS = (DISK_MIB * 2 ** 20) / BLOCK_BYTES;
const WORKLOAD = { regionMiB: 16, rate: 20e6, diskMiB: DISK_MIB };
const ROUND = { timeoutMs: 60_000, fresh: true };
const REPLACED = 8;
const HELD = { timeoutMs: 60_000 };
/**
 * How long the image is locked, milliseconds: longer than the destination takes to give up, so that the source finds
 * the image locked.
 */
const LOCKED_MS = 1500;

const diskOf = (pair: Pair, at: HostAgents): DiskBeat =>
  pair.rig.serial(at.host, NAME).lastBeat()?.disk ?? { written: 0, checked: 0, wrong: 0, failed: 0 };

/** Waits until the guest has compared each block once more since `before`. */
async function checkedAll(pair: Pair, at: HostAgents, before: DiskBeat): Promise<DiskBeat> {
  const isAround = (disk: DiskBeat | undefined): boolean => (disk?.checked ?? 0) >= before.checked + BLOCKS;
  await pair.rig.serial(at.host, NAME).waitForBeat(({ disk }) => isAround(disk), ROUND);
  return diskOf(pair, at);
}

async function assertWhole(t: Test, pair: Pair, at: HostAgents, before: DiskBeat): Promise<DiskBeat> {
  const now = await checkedAll(pair, at, before);
  t.ok(now.written > before.written, `the guest goes on writing at ${at.host.name}: ${now.written} blocks`);
  t.match(now, { wrong: 0, failed: 0 }, "all blocks are as the guest wrote them, and none gave an error");
  return now;
}

/**
 * Stops the guest, calls `act`, and lets the guest go on. While the guest is stopped, no request is under way between
 * it and its disk.
 */
async function whileStopped<Value>(pair: Pair, at: HostAgents, act: (disk: DiskBeat) => Value): Promise<Value> {
  const qmp = await pair.rig.observe(at.host, NAME);
  await qmp.execute("stop");
  pair.rig.serial(at.host, NAME).catchUp();
  try {
    return act(diskOf(pair, at));
  } finally {
    await qmp.execute("cont");
    qmp.close();
    await qmp.closed;
  }
}

/**
 * Copies blocks of an older image over the blocks of a newer one. The newer disk is then as it would be after lost
 * writes.
 */
function putBack(blocks: readonly number[], older: string, newer: string): void {
  const old = readFileSync(older);
  const file = openSync(newer, "r+");
  for (const block of blocks) writeSync(file, old, block * BLOCK_BYTES, BLOCK_BYTES, block * BLOCK_BYTES);
  closeSync(file);
}

t.test("the disk of a guest that moves has all that the guest wrote", async (t) => {
  const folder = t.testdir();
  const [image, older] = [join(folder, "d.raw"), join(folder, "older.raw")];
  makeDiskImage(image, DISK_MIB);
  const pair = await openPair(t, { guest: { name: NAME, workload: WORKLOAD, extra: blockDisk(image) } });
  const { rig, a, b } = pair;
  let disk = await assertWhole(t, pair, a, diskOf(pair, a));

  for (const [from, to, strategy] of [
    [a, b, "precopy"],
    [b, a, "stop-and-copy"],
    [a, b, "postcopy"],
    [b, a, "hybrid"],
  ] as const)
    await t.test(`after ${strategy} the disk has all that the guest wrote, and the guest writes on`, async (t) => {
      requireMoved(await migrate(rig, from, to, NAME, ["--strategy", strategy]));
      await assertOneGuest(t, rig, { name: NAME, at: to.host });
      // all blocks are compared after the move, also those that were compared while it was under way
      disk = await assertWhole(t, pair, to, { ...diskOf(pair, to), written: disk.written });
    });

  const locker = await ImageLocker.start(rig, rig.b);
  // on a busy host precopy may come no closer to its end than a second or two, so its target is 10 s; without deltas
  // hybrid goes into post-copy
  for (const [strategy, ...options] of [
    ["precopy", "--downtime", "10s"],
    ["hybrid", "--no-delta"],
  ] as const)
    await t.test(
      `with ${strategy} the guest goes on at the source when its image is locked while the destination loads the guest`,
      async (t) => {
        await b.destination.stop();
        const holding = await startAgent(rig, rig.b, "destination", ["--faults=hold-at=loading"]);
        t.teardown(() => holding.stop());
        const run = await startMigrate(rig, a, b, NAME, ["--strategy", strategy, ...options]);
        await Promise.race([holding.waitForOutput(/"held":"loading"/, HELD), run.ended]);
        // this program gets the lock only after the source has let go of the image
        const lock = locker.want(image, { locks: 1, lockedMs: LOCKED_MS });
        await lock.taken;
        holding.signal("SIGUSR2");
        const { code, answer } = await run.end();
        const error = { message: /lock/, guestNow: "the guest runs at the source" };
        t.match({ code, answer }, { code: 1, answer: { status: "failed", error } });
        t.equal(await lock.end(), 1);
        await assertOneGuest(t, rig, { name: NAME, at: rig.a });
        disk = await assertWhole(t, pair, a, disk);
      },
    );
  locker.close();

  await t.test("other programs find on the image what the guest wrote last", async (t) => {
    const found = await whileStopped(pair, a, ({ written }) => {
      copyFileSync(image, older);
      return wrongBlocks(image, written);
    });
    t.same(found, []);
  });

  await t.test("the guest and a reader of the image both find each block of an older version", async (t) => {
    await checkedAll(pair, a, diskOf(pair, a));
    let replaced: readonly number[] = [];
    const found = await whileStopped(pair, a, ({ written }) => {
      // these blocks are half a round ahead of the guest, which is then not between the check and the write of any of
      // them
      const first = written + BLOCKS / 2;
      replaced = Array.from({ length: REPLACED }, (_, turn) => blockOfWrite(first + turn, BLOCKS));
      putBack(replaced, older, image);
      return wrongBlocks(image, written);
    });
    const ordered = [...replaced].sort((one, other) => one - other);
    t.match(
      found,
      ordered.map((block) => new RegExp(`^block ${block} has version \\d+, and the guest had written version \\d+$`)),
      "the reader of the image finds each of these blocks",
    );
    t.equal(found.length, REPLACED);
    const { wrong } = await checkedAll(pair, a, diskOf(pair, a));
    t.equal(wrong, REPLACED, "the guest counts each of these blocks once");
    const said = rig
      .serial(a.host, NAME)
      .corruptions()
      .map((line) => /^FERRY CORRUPT block=(\d+) .* holds=\1,\d+$/.exec(line));
    t.same(
      said.map((match) => Number(match?.[1])).sort((one, other) => one - other),
      ordered,
      "the guest names each of these blocks",
    );
  });
});
