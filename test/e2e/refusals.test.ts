/** A migration that cannot be is refused with every reason at once, and nothing is touched for it. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { assertOneGuest } from "../support/after-migration.ts";
import { startAgent } from "../support/agents.ts";
import { ferryJson, migrate, requireMoved } from "../support/ferry-json.ts";
import { type GuestDefinitionFile, type GuestOptions, guestDefinition } from "../support/guest.ts";
import { IDLE, openPair, type Pair } from "../support/pair.ts";
import type { RigHost } from "../support/rig.ts";

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

const define = (host: RigHost, definition: GuestDefinitionFile): void =>
  writeFileSync(join(host.guestsDirectory, `${definition.name}.json`), JSON.stringify(definition));

interface Refusal {
  readonly code: string;
  readonly message: string;
}

/** Both `plan` and `migrate` give these reasons, and the guest has noticed nothing. @returns all messages */
async function refused(t: Test, { rig, a, b }: Pair, codes: readonly string[]): Promise<string> {
  const before = rig.qemus();
  const planned = await ferryJson<{ accepted: boolean; refusals: Refusal[] }>(rig, a, [
    ...["plan", "refused", "--to", b.destinationAddress],
  ]);
  const { code, answer } = await migrate(rig, a, b, "refused");
  t.equal(planned.code, 1, "plan exits with 1");
  t.equal(code, 1, "and so does migrate");
  t.equal(planned.answer.accepted, false);
  t.match(answer, { status: "failed", error: { code: "refused", guestNow: /runs at the source/ } });
  const reasons = answer.error?.refusals ?? [];
  t.same(codesOf(reasons), codes, "all reasons at once");
  t.same(codesOf(planned.answer.refusals), codes, "the check before gives the same");
  await assertOneGuest(t, rig, { name: "refused", at: rig.a });
  t.same(rig.qemus(), before, "the same QEMU runs");
  return reasons.map(({ message }) => message).join("; ");
}

const codesOf = (reasons: readonly Refusal[]): string[] => reasons.map(({ code }) => code).sort();
