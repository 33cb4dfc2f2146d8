/** Tries migrations that are not possible: each is refused with every reason at once, and nothing is touched. */
import t from "tap";
import type { GuestView } from "../../shared/protocol/report.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { type HostAgents, startAgent } from "../support/agents.ts";
import { ferryJson, migrate, requireMoved } from "../support/ferry-json.ts";
import { type GuestOptions, guestDefinition } from "../support/guest.ts";
import { IDLE, openPair } from "../support/pair.ts";
import { define, refused } from "../support/refused.ts";
import { EXECUTES, executesWith, openWrapped, wrap } from "../support/wrapped-guest.ts";

t.setTimeout(240_000);
const GUEST: GuestOptions = { name: "refused", memoryMiB: 256, workload: IDLE };

t.test("a destination refuses with all its reasons at once", async (t) => {
  const pair = await openWrapped(t, GUEST);
  const { rig, a, b, definition } = pair;

  await t.test("a destination with another definition says only that, and nothing of its QEMU", async (t) => {
    const other = guestDefinition({ ...GUEST, machine: "pc-q35-8.2", memoryMiB: 128 });
    define(rig.b, other);
    const messages = await refused(t, pair, ["guest-definition"]);
    t.notMatch(messages, /q35|128/);
    const digestAt = async (host: HostAgents): Promise<string> =>
      (await ferryJson<GuestView>(rig, host, ["guests"])).answer.definitionDigest;
    const [here, there] = [await digestAt(a), await digestAt(b)];
    t.match(here, /^[0-9a-f]{64}$/);
    t.not(here, there, "ferry guests shows another digest at each host");
    t.match(messages, new RegExp(`"ferry guests".*\\(.* at the source is ${here.slice(0, 12)}\\)`));
    t.notMatch(messages, new RegExp(there.slice(0, 6)));
    t.match(
      b.destination.output(),
      new RegExp(`${there}.*definition differs`),
      "the log of the destination has the digest of its own definition",
    );
    define(rig.b, definition);
  });

  await t.test("another machine type, CPU and memory size by the same definition are refused together", async (t) => {
    wrap(rig.b, ...executesWith({ "pc-q35-8.1": "pc-q35-8.2", qemu64: "Nehalem", 256: "128" }));
    await refused(t, pair, ["cpu-features", "cpu-model", "machine-type", "ram-blocks"]);
  });

  await t.test("another machine type is refused, and both machine types are named", async (t) => {
    wrap(rig.b, ...executesWith({ "pc-q35-8.1": "pc-i440fx-8.1" }));
    const messages = await refused(t, pair, ["machine-type"]);
    t.match(messages, /pc-q35-8\.1.*pc-i440fx-8\.1/, "both machine types are named");
  });

  await t.test("a machine type that the destination's QEMU does not know is refused in QEMU's own words", async (t) => {
    wrap(rig.b, ...executesWith({ "pc-q35-8.1": "pc-q35-99.0" }));
    const messages = await refused(t, pair, ["qemu-start"]);
    t.match(messages, /pc-q35-99\.0/, "the message has QEMU's own words");
  });

  await t.test("too little memory and another definition are refused together", async (t) => {
    await b.destination.stop();
    define(rig.b, guestDefinition({ ...GUEST, machine: "pc-q35-8.2" }));
    const poor = await startAgent(rig, rig.b, "destination", ["--memory-reserve=100000GiB"]);
    const messages = await refused(t, pair, ["free-memory", "guest-definition"]);
    t.match(messages, /needs \d+ MiB .* has \d+ MiB free/);
    await poor.stop();
    await startAgent(rig, rig.b, "destination");
  });

  await t.test("the guest moves once everything is mended", async (t) => {
    rig.writeDefinition(definition);
    wrap(rig.b, EXECUTES);
    requireMoved(await migrate(rig, a, b, "refused"));
    await assertOneGuest(t, rig, { name: "refused", at: rig.b });
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
  await t.test("the source's reasons come together with those of the destination", async (t) => {
    define(rig.b, guestDefinition({ ...GUEST, machine: "pc-q35-8.2" }));
    const both = ["capability-x-ignore-shared", "capability-xbzrle", "guest-definition"];
    await refused(t, pair, both);
    define(rig.b, pair.definition);
  });
  await t.test("the source's reasons come also when the destination cannot be asked", async (t) => {
    const away = { ...pair, b: { ...b, destinationAddress: `${rig.b.address}:9` } };
    await refused(t, away, ["capability-x-ignore-shared", "capability-xbzrle", "peer-unreachable"]);
  });
  await set(false);
  monitor.close();
  await t.test("the source names a guest that it does not know, and a destination that it cannot reach", async (t) => {
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
