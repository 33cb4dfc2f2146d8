/** A migration that cannot be is refused with every reason at once, and nothing is touched for it. */
import t from "tap";
import { assertOneGuest } from "../support/after-migration.ts";
import { startAgent } from "../support/agents.ts";
import { migrate, requireMoved } from "../support/ferry-json.ts";
import { type GuestOptions, guestDefinition } from "../support/guest.ts";
import { IDLE, openPair } from "../support/pair.ts";
import { define, refused } from "../support/refused.ts";

t.setTimeout(240_000);
const GUEST: GuestOptions = { name: "refused", memoryMiB: 256, workload: IDLE };

t.test("a destination refuses with all its reasons at once", async (t) => {
  const pair = await openPair(t, { guest: GUEST });

  await t.test("another machine type, CPU and memory size in its definition", async (t) => {
    const other = guestDefinition({ ...GUEST, machine: "pc-q35-8.2", memoryMiB: 128 });
    const command = other.command.map((part) => (part === "qemu64" ? "Nehalem" : part));
    define(pair.rig.b, { ...other, command });
    await refused(t, pair, ["cpu-features", "cpu-model", "guest-definition", "machine-type", "ram-blocks"]);
  });

  await t.test("another machine type alone, which makes it another definition", async (t) => {
    define(pair.rig.b, guestDefinition({ ...GUEST, machine: "pc-i440fx-8.1" }));
    const messages = await refused(t, pair, ["guest-definition", "machine-type"]);
    t.match(messages, /pc-q35-8\.1.*pc-i440fx-8\.1/, "both machine types are named");
  });

  await t.test("no machine that its QEMU knows", async (t) => {
    define(pair.rig.b, guestDefinition({ ...GUEST, machine: "pc-q35-99.0" }));
    const messages = await refused(t, pair, ["guest-definition", "qemu-start"]);
    t.match(messages, /pc-q35-99\.0/, "QEMU's own words are in it");
  });

  await t.test("no memory, and another definition", async (t) => {
    await pair.b.destination.stop();
    const poor = await startAgent(pair.rig, pair.rig.b, "destination", ["--memory-reserve=100000GiB"]);
    const messages = await refused(t, pair, ["free-memory", "guest-definition"]);
    t.match(messages, /needs \d+ MiB .* has \d+ MiB free/);
    await poor.stop();
    await startAgent(pair.rig, pair.rig.b, "destination");
  });

  await t.test("once all is mended the guest moves", async (t) => {
    pair.rig.writeDefinition(pair.definition);
    requireMoved(await migrate(pair.rig, pair.a, pair.b, "refused"));
    await assertOneGuest(t, pair.rig, { name: "refused", at: pair.rig.b });
  });
});

t.test("the source refuses what its QEMU cannot carry, with all reasons at once", async (t) => {
  const pair = await openPair(t, { guest: GUEST });
  const { rig, a, b } = pair;
  const monitor = await rig.observe(rig.a, "refused");
  const set = (state: boolean): Promise<unknown> =>
    monitor.execute("migrate-set-capabilities", {
      capabilities: ["xbzrle", "x-ignore-shared"].map((capability) => ({ capability, state })),
    });
  await set(true);
  await refused(t, pair, ["capability-x-ignore-shared", "capability-xbzrle"]);
  await t.test("together with those of the destination", async (t) => {
    define(rig.b, guestDefinition({ ...GUEST, machine: "pc-q35-8.2" }));
    const both = ["capability-x-ignore-shared", "capability-xbzrle", "guest-definition", "machine-type"];
    await refused(t, pair, both);
    define(rig.b, pair.definition);
  });
  await t.test("also when the destination cannot be asked", async (t) => {
    const away = { ...pair, b: { ...b, destinationAddress: `${rig.b.address}:9` } };
    await refused(t, away, ["capability-x-ignore-shared", "capability-xbzrle", "peer-unreachable"]);
  });
  await set(false);
  monitor.close();
  await t.test("and names what it does not know", async (t) => {
    const { code, answer } = await migrate(rig, a, b, "nobody");
    t.equal(code, 1);
    t.match(answer, { error: { code: "guest-unknown", message: /nobody/ } });
    const away = { ...b, destinationAddress: `${rig.b.address}:9` };
    const unreachable = await migrate(rig, a, away, "refused");
    t.equal(unreachable.code, 1);
    t.match(unreachable.answer, { error: { code: "peer-unreachable", guestNow: /runs at the source/ } });
  });
  await assertOneGuest(t, rig, { name: "refused", at: rig.a });
});
