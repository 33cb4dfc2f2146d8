/**
 * Moves a guest with a disk that both hosts share. The destination's QEMU opens the image for writing only when the
 * guest is to run. What would keep QEMU from that is found before the grant where it can be found then; where it
 * cannot, the guest goes back to the source.
 */
import { join } from "node:path";
import t, { type Test } from "tap";
import { decodeDestinationRecord } from "../../shared/protocol/record-decoding.ts";
import type { MigrationView } from "../../shared/protocol/report.ts";
import { Journal } from "../../shared/runtime/journal/journal.ts";
import { assertOneGuest, processesOf } from "../support/after-migration.ts";
import { type HostAgents, listMigrations, startAgent } from "../support/agents.ts";
import { eventually } from "../support/bounded.ts";
import { migrate, requireMoved, startMigrate } from "../support/ferry-json.ts";
import { openPair, type Pair } from "../support/pair.ts";
import type { Rig } from "../support/rig.ts";
import { DISK_ARGUMENTS, fillDisk, IMAGES, SharedImages } from "../support/shared-images.ts";

t.setTimeout(300_000);
const NAME = "disky";
const HELD = { timeoutMs: 60_000 };
const SETTLES = { timeoutMs: 60_000, everyMs: 200 };
const WORKLOAD = { regionMiB: 16, rate: 20e6 };
const POSTCOPY = ["--strategy", "postcopy"];
const HERE = { name: NAME, beside: [IMAGES] };

const isRoot = process.getuid?.() === 0;

/** Puts another destination agent at b in place of the one there: it will hold a migration in this state. */
async function heldAt(pair: Pair, state: string): Promise<HostAgents> {
  await pair.b.destination.stop();
  return {
    ...pair.b,
    destination: await startAgent(pair.rig, pair.rig.b, "destination", [`--faults=hold-at=${state}`]),
  };
}

/** Waits until the destination agent holds a migration in a state. @returns the id of the migration */
async function held(b: HostAgents, state: string): Promise<string> {
  const [, id] = await b.destination.waitForOutput(new RegExp(`"migration":"(\\w+)"[^\\n]*"held":"${state}"`), HELD);
  return id ?? "";
}

/** Waits until the source's view of a migration is as wanted. */
function until(rig: Rig, a: HostAgents, id: string, isIt: (view: MigrationView) => boolean): Promise<MigrationView> {
  const look = async () => (await listMigrations(rig, a)).find((one) => one.id === id && isIt(one));
  return eventually(look, { ...SETTLES, what: `the wanted view of ${id}` });
}

async function assertRefused(t: Test, rig: Rig, id: string): Promise<void> {
  const journal = await Journal.open(join(rig.b.stateDirectory, "destination"), decodeDestinationRecord);
  const record = await journal.read(id);
  t.match(record, { kind: "refused", reason: /did not start the guest/, heard: true }, "the journal has the refusal");
  t.same(processesOf(rig, rig.b, NAME), [], "no QEMU of the guest is left at the destination");
}

t.test("a guest with a shared disk moves, or goes back", { skip: !isRoot && "needs root, to mount" }, async (t) => {
  let images: SharedImages | undefined;
  const pair = await openPair(t, {
    guest: { name: NAME, workload: WORKLOAD, extra: DISK_ARGUMENTS },
    prepare: (rig) => {
      images = SharedImages.share(t, rig);
    },
  });
  const { rig, a } = pair;
  if (images === undefined) throw new Error("nothing is shared");
  const disk = images;

  await t.test("a migration to a host that may not write the image fails before the grant", async (t) => {
    disk.setReadOnly(pair.b.destination, true);
    const { code, answer } = await migrate(rig, a, pair.b, NAME);
    const error = {
      message: /cannot use the guest's images: .*[Rr]ead-only/,
      guestNow: "the guest runs at the source",
    };
    t.match({ code, answer }, { code: 1, answer: { status: "failed", error } });
    t.notMatch(a.source.output(), /"state":"granting"/);
    await assertOneGuest(t, rig, { ...HERE, at: rig.a });
    disk.setReadOnly(pair.b.destination, false);
  });

  for (const [what, flags] of [
    ["whole", []],
    ["in post-copy", POSTCOPY],
  ] as const)
    await t.test(
      `a guest that is granted ${what} goes back if its image cannot be written any more when it is started`,
      async (t) => {
        const b = await heldAt(pair, "owning");
        const run = await startMigrate(rig, a, b, NAME, flags);
        const id = await held(b, "owning");
        disk.setReadOnly(b.destination, true);
        b.destination.signal("SIGUSR2");
        const { code, answer } = await run.end();
        const error = {
          message: /did not start the guest: .*[Rr]ead-only/,
          guestNow: "the guest runs at the source",
        };
        t.match({ code, answer }, { code: 1, answer: { status: "failed", error } });
        await assertOneGuest(t, rig, { ...HERE, at: rig.a });
        await assertRefused(t, rig, id);
        disk.setReadOnly(b.destination, false);
        await b.destination.stop();
      },
    );

  for (const [what, flags] of [
    ["whole", []],
    ["in post-copy", POSTCOPY],
  ] as const)
    await t.test(
      `a guest that is granted ${what} goes back as soon as somebody's lock on its image ends`,
      async (t) => {
        const b = await heldAt(pair, "starting");
        const run = await startMigrate(rig, a, b, NAME, flags);
        const id = await held(b, "starting");
        const locker = await disk.lock(rig.b);
        b.destination.signal("SIGUSR2");
        const view = await until(rig, a, id, ({ status }) => status === "undoing");
        t.match(view.error, { message: /did not start the guest: .*lock/ });
        const isToldWhy = (one: MigrationView): boolean =>
          /cannot be confirmed to run .*lock/.test(one.error?.guestNow ?? "");
        await until(rig, a, id, isToldWhy);
        t.same(processesOf(rig, rig.a, NAME).length, 1, "the source QEMU stays until the guest can be started in it");
        await locker.stop();
        const { code, answer } = await run.end();
        const error = { message: /did not start the guest: .*lock/, guestNow: "the guest runs at the source" };
        t.match({ code, answer }, { code: 1, answer: { status: "failed", error } });
        await assertOneGuest(t, rig, { ...HERE, at: rig.a });
        await assertRefused(t, rig, id);
        await b.destination.stop();
      },
    );

  for (const [what, flags] of [
    ["whole", []],
    ["in post-copy", POSTCOPY],
  ] as const)
    await t.test(`a guest granted ${what} has its disk at both hosts if both may write it`, async (t) => {
      const b = { ...pair.b, destination: await startAgent(rig, rig.b, "destination") };
      const before = await rig.observe(rig.a, NAME);
      await fillDisk(before, 0xa5, "0", "64k");
      before.close();
      await before.closed;
      requireMoved(await migrate(rig, a, b, NAME, flags));
      await assertOneGuest(t, rig, { ...HERE, at: rig.b });
      const after = await rig.observe(rig.b, NAME);
      await fillDisk(after, 0x5a, "64k", "64k");
      after.close();
      await after.closed;
      requireMoved(await migrate(rig, b, a, NAME, flags));
      await assertOneGuest(t, rig, { ...HERE, at: rig.a });
      const found = disk.read();
      t.ok(
        found.subarray(0, 65536).every((byte) => byte === 0xa5),
        "the image has what the guest wrote at the first host",
      );
      t.ok(
        found.subarray(65536, 131072).every((byte) => byte === 0x5a),
        "the image has what the guest wrote at the second host",
      );
      await b.destination.stop();
    });
});
