/**
 * Moves guests between agents of this build and agents of the last release, in both directions, with the `ferry` of the
 * other build each time; and puts agents of this build in the place of agents of the last release.
 */
import t, { type Test } from "tap";
import type { PlanView } from "../../shared/protocol/plan-view.ts";
import type { GuestView, MigrationResult, MigrationView } from "../../shared/protocol/report.ts";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { type HostAgents, listMigrations, startAgent } from "../support/agents.ts";
import { eventually } from "../support/bounded.ts";
import { ferryJson, migrate, requireMoved, startMigrate } from "../support/ferry-json.ts";
import { lastRelease } from "../support/last-release.ts";
import { noPostcopyFrom } from "../support/other-qemu.ts";
import { openPair } from "../support/pair.ts";
import type { Rig } from "../support/rig.ts";

t.setTimeout(480_000);
const NAME = "crossing";
const MEMORY_MIB = 256;
const HELD = { timeoutMs: 60_000 };
const SKIP_POSTCOPY = { skip: noPostcopyFrom("a") || noPostcopyFrom("b") };
const last = lastRelease();

/** The agents of a host as the `ferry` of the other build asks them. */
const byOther = (agents: HostAgents): HostAgents => ({
  ...agents,
  build: agents.build === last.root ? packageRoot() : last.root,
});

async function assertPlanned(t: Test, rig: Rig, from: HostAgents, to: HostAgents): Promise<void> {
  const guests = await ferryJson<readonly GuestView[]>(rig, byOther(from), ["guests"]);
  t.match(JSON.stringify(guests.answer), new RegExp(`"name":"${NAME}","state":"running"`), "the guest is seen to run");
  const look = ["plan", NAME, "--to", to.destinationAddress, "--observe", "1s"];
  const { code, answer } = await ferryJson<PlanView>(rig, byOther(from), look);
  t.match({ code, answer }, { code: 0, answer: { accepted: true, recommended: /\w/, reason: /\w/ } });
  t.equal(answer.predictions?.length, 4, "each strategy is predicted");
}

/** Waits until an agent lists a migration as ended well. The source may know that before its destination lists it. */
function listedAsMoved(rig: Rig, agents: HostAgents, id: string): Promise<MigrationView> {
  const find = async (): Promise<MigrationView | undefined> =>
    (await listMigrations(rig, agents)).find((one) => one.id === id && one.status === "moved");
  return eventually(find, { timeoutMs: 60_000, what: `${agents.sourceAddress} to list ${id} as moved` });
}

/** Moves the guest by the `ferry` of the other build, and checks the guest. */
async function moved(
  t: Test,
  rig: Rig,
  from: HostAgents,
  to: HostAgents,
  options: readonly string[],
): Promise<MigrationView & { readonly result: MigrationResult }> {
  const view = requireMoved(await migrate(rig, byOther(from), to, NAME, options));
  t.match(view, { guest: NAME, negotiated: { "protocol version": "2" } });
  await assertOneGuest(t, rig, { name: NAME, at: to.host });
  return view;
}

/**
 * Kills the source agent of the last release when it has granted the guest and not said so yet. Then an agent of this
 * build starts from its journal, and ends the migration.
 */
async function updatedInMidst(t: Test, rig: Rig, from: HostAgents, to: HostAgents): Promise<void> {
  await from.source.stop();
  const held = await startAgent(rig, from.host, "source", ["--faults=hold-at=granting"], last.root);
  const run = await startMigrate(rig, from, to, NAME);
  const [, id] = await held.waitForOutput(/"migration":"(\w+)"[^\n]*"held":"granting"/, HELD);
  held.signal("SIGKILL");
  await held.ended;
  const updated: HostAgents = {
    ...from,
    source: await startAgent(rig, from.host, "source"),
    build: packageRoot(),
  };
  await run.end();
  await listedAsMoved(rig, updated, id!);
  await assertOneGuest(t, rig, { name: NAME, at: to.host });
  const known = await listMigrations(rig, updated);
  t.ok(known.length > 1, "the agent has read the journal that the last release wrote");
  t.same(
    known.filter(({ status }) => status !== "moved"),
    [],
    "the migrations in it have ended as they had",
  );
}

t.test(`guests move between agents of ${last.version} and of this build`, async (t) => {
  const workload = { regionMiB: 48, rate: 40e6 };
  const options = { guest: { name: NAME, memoryMiB: MEMORY_MIB, workload }, a: { build: last.root } };
  const { rig, a, b } = await openPair(t, options);
  const bothWays = [
    ["there", a, b],
    ["back", b, a],
  ] as const;

  for (const [way, from, to] of bothWays)
    await t.test(`by precopy, ${way}`, async (t) => {
      await assertPlanned(t, rig, from, to);
      const { id, result } = await moved(t, rig, from, to, ["--strategy", "precopy", "--verify"]);
      t.equal(result.verified, true);
      t.ok(result.pagesCompared >= (MEMORY_MIB << 20) / 4096, `${result.pagesCompared} pages are alike`);
      t.ok(result.pages.delta > 0, "pages went as deltas");
      for (const agents of [from, { ...to, sourceAddress: to.destinationAddress }])
        t.match(await listedAsMoved(rig, byOther(agents), id), { guest: NAME, destination: to.destinationAddress });
    });

  for (const [way, from, to] of bothWays)
    await t.test(`by post-copy, ${way}`, SKIP_POSTCOPY, async (t) => {
      const { result } = await moved(t, rig, from, to, ["--strategy", "postcopy"]);
      t.ok(result.postcopy !== undefined, "the migration ended in post-copy");
    });

  await t.test(`an agent of this build ends what one of ${last.version} has granted`, (t) =>
    updatedInMidst(t, rig, a, b),
  );
});
