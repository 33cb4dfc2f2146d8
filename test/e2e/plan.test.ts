/**
 * Looks at guests with `ferry plan`: the plan finds what a guest does, a migration with `auto` does what was
 * recommended, and the guest goes on as if nothing had happened.
 */
import t, { type Test } from "tap";
import type { PlanView } from "../../shared/protocol/plan-view.ts";
import { isFinal } from "../../shared/protocol/report.ts";
import type { MigrationInfo } from "../../shared/qemu/qmp/qmp-types.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { ferry, type HostAgents, listMigrations, startAgent } from "../support/agents.ts";
import { eventually } from "../support/bounded.ts";
import { type FerryRun, ferryJson, migrate, requireMoved, startMigrate } from "../support/ferry-json.ts";
import { IDLE, openPair } from "../support/pair.ts";
import type { Rig, RigHost } from "../support/rig.ts";

t.setTimeout(180_000);
const NAME = "planned";
const MEMORY_MIB = 256;
/** A workload that dirties more than a link of 100 Mbit/s carries, and for which neither deltas nor zstd help. */
const WILD = { regionMiB: 48, rate: 60e6, mode: "scramble" } as const;

const plan = (rig: Rig, from: HostAgents, to: HostAgents, more: readonly string[] = []): Promise<FerryRun<PlanView>> =>
  ferryJson<PlanView>(rig, from, ["plan", NAME, "--to", to.destinationAddress, ...more]);

/** Reads QEMU's migration settings, which a look changes, and the run state of QEMU. */
async function settingsOf(rig: Rig, host: RigHost) {
  const monitor = await rig.observe(host, NAME);
  try {
    return {
      capabilities: await monitor.execute("query-migrate-capabilities"),
      parameters: await monitor.execute("query-migrate-parameters"),
      status: (await monitor.execute("query-status")).status,
    };
  } finally {
    monitor.close();
  }
}

t.test("an idle guest is looked at, and is as it was afterwards", async (t) => {
  const { rig, a, b } = await openPair(t, { guest: { name: NAME, memoryMiB: MEMORY_MIB, workload: IDLE } });
  await t.test("a look finds that the guest is idle, and then that it is paused", (t) => idleIsLookedAt(t, rig, a, b));
  await t.test("an agent that starts after a kill in a look puts QEMU's settings back", (t) =>
    killedWhileLooking(t, rig, b, a),
  );
});

async function idleIsLookedAt(t: Test, rig: Rig, a: HostAgents, b: HostAgents): Promise<void> {
  const before = await settingsOf(rig, rig.a);
  const { code, answer } = await plan(rig, a, b, ["--observe", "1s"]);
  t.equal(code, 0);
  t.match(answer, { accepted: true, notes: [], recommended: "precopy", reason: /dirties next to nothing/ });
  assertObserved(t, answer);
  t.match(
    answer.predictions?.map(({ strategy, offered, converges }) => ({ strategy, offered, converges })),
    ["stop-and-copy", "precopy", "postcopy", "hybrid"].map((strategy) => ({
      strategy,
      offered: true,
      converges: "yes",
    })),
  );
  t.same(await settingsOf(rig, rig.a), before, "QEMU's settings are as they were, and QEMU runs its guest");
  await assertOneGuest(t, rig, { name: NAME, at: rig.a });
  t.same(await listMigrations(rig, a), [], "a look is no migration");
  await pausedIsLookedAt(t, rig, a, b);
}

async function say(rig: Rig, word: "stop" | "cont"): Promise<void> {
  const monitor = await rig.observe(rig.a, NAME);
  await monitor.execute(word);
  monitor.close();
  await monitor.closed;
}

/**
 * Looks at the guest while it is paused. A QEMU whose guest stands still would complete its migration without being
 * told to.
 */
async function pausedIsLookedAt(t: Test, rig: Rig, a: HostAgents, b: HostAgents): Promise<void> {
  await say(rig, "stop");
  const before = await settingsOf(rig, rig.a);
  t.equal(before.status, "paused");
  const { answer } = await plan(rig, a, b, ["--observe", "30s"]);
  t.match(answer, { recommended: "stop-and-copy", reason: /the guest is paused/ });
  t.match(answer.negotiated, { strategy: "stop-and-copy (auto: the guest is paused)" });
  t.ok(
    (answer.observation?.cost.seconds ?? Number.POSITIVE_INFINITY) < 120,
    "the look ends early, since a paused guest shows nothing more",
  );
  t.same(await settingsOf(rig, rig.a), before, "the guest is paused as it was");
  await say(rig, "cont");
  await assertOneGuest(t, rig, { name: NAME, at: rig.a });
  const { negotiated } = requireMoved(await migrate(rig, a, b, NAME));
  t.match(
    negotiated.strategy,
    /^precopy \(auto/,
    "auto does not follow the plan of a paused guest once the guest runs again",
  );
}

function assertObserved(t: Test, { observation, link }: PlanView): void {
  const { memoryBytes = 0, zeroBytes = 0, seconds = 0, hostSpeed = 0, cost } = observation ?? {};
  t.ok(memoryBytes >= MEMORY_MIB << 20 && memoryBytes < (MEMORY_MIB + 64) << 20);
  t.ok(zeroBytes > 0 && zeroBytes < memoryBytes);
  t.ok(seconds >= 1 && seconds < 60, `looked for ${seconds} s`);
  t.ok(
    cost !== undefined && cost.seconds > seconds && cost.agentCpuSeconds > 0,
    "the observation says what the look cost",
  );
  t.ok(hostSpeed > 0.001 && hostSpeed < 8, `the host is ${hostSpeed} times as fast as the model's`);
  const bytesPerSecond = link?.bytesPerSecond ?? 0;
  t.ok(bytesPerSecond > 1e6 && bytesPerSecond < 130e6, `at most 1 Gbit/s, less on a busy host: ${bytesPerSecond}`);
  t.ok((link?.roundTripMs ?? 0) > 0);
}

t.test("a plan recommends post-copy or hybrid for a guest that precopy cannot follow, and auto does it", async (t) => {
  const { rig, a, b } = await openPair(t, { guest: { name: NAME, memoryMiB: MEMORY_MIB, workload: WILD } });
  await rig.network.setRate(1e8);
  const { answer } = await plan(rig, a, b, ["--observe", "2s"]);
  t.match(answer, { recommended: /hybrid|postcopy/, reason: /bounded/ });
  t.match(
    answer.predictions?.find(({ strategy }) => strategy === "precopy"),
    { converges: "no" },
  );
  const robust = await plan(rig, a, b, ["--observe", "500ms", "--robust", "--downtime", "200ms"]);
  t.match(robust.answer, {
    recommended: "precopy",
    reason: /robustness comes first, but precopy (does|may) not converge/,
  });
  const { negotiated, result } = requireMoved(await migrate(rig, a, b, NAME, ["--deadline", "90s"]));
  t.match(negotiated.strategy, /^(hybrid|postcopy) \(auto, by the plan before: /);
  t.ok(result.postcopy !== undefined, "the migration ended in post-copy");
  await assertOneGuest(t, rig, { name: NAME, at: rig.b });
  await t.test("auto without a plan finds the same while it copies", (t) => autoWithoutPlan(t, rig, b, a));
});

/** Moves a guest that no precopy can follow, of which there is no plan: with --robust at first, and then without. */
async function autoWithoutPlan(t: Test, rig: Rig, from: HostAgents, to: HostAgents): Promise<void> {
  const robust = await startMigrate(rig, from, to, NAME, ["--robust"]);
  const id = await robust.copying();
  await robust.until(/"outlook":"precopy has no end in sight: [^"]*would end it"/, "the outlook of a robust migration");
  await ferryJson(rig, from, ["cancel", id]);
  t.match((await robust.end()).answer, { status: "cancelled" });
  await assertOneGuest(t, rig, { name: NAME, at: from.host });
  const { negotiated, result } = requireMoved(await migrate(rig, from, to, NAME));
  t.match(negotiated, { strategy: "precopy (auto)", "post-copy": /^follows where precopy has no end/ });
  t.match(result.switchReason, /^auto: /);
  t.ok(result.postcopy !== undefined, "the migration ended in post-copy");
  await assertOneGuest(t, rig, { name: NAME, at: to.host });
}

/** Checks that nothing else begins while a guest is looked at, and that an agent that starts anew puts QEMU right. */
async function killedWhileLooking(t: Test, rig: Rig, from: HostAgents, to: HostAgents): Promise<void> {
  const before = await settingsOf(rig, from.host);
  const look = await ferry(rig, from, ["plan", NAME, "--to", to.destinationAddress, "--observe", "60s"]);
  await settled(rig, from.host, ({ status }) => status === "active", "the look");
  t.match((await migrate(rig, from, to, NAME)).answer, {
    error: { code: "guest-busy", message: /looked at for a plan/ },
  });
  t.match((await plan(rig, from, to)).answer, { error: { code: "guest-busy" } });
  from.source.signal("SIGKILL");
  t.not((await look.ended).code, 0, "ferry plan fails when its agent is killed");
  const again = await startAgent(rig, from.host, "source");
  const agents = { ...from, source: again };
  await settled(rig, from.host, ({ status }) => status !== "active" && status !== "cancelling", "the end of the look");
  await eventually(
    async () => ((await listMigrations(rig, agents)).some(({ status }) => isFinal(status)) ? true : undefined),
    {
      timeoutMs: 20_000,
      what: "the agent that started again to put it right",
    },
  );
  t.same(await settingsOf(rig, from.host), before);
  requireMoved(await migrate(rig, agents, to, NAME));
  await assertOneGuest(t, rig, { name: NAME, at: to.host });
}

/** Waits until what QEMU says of its migration fits. */
async function settled(rig: Rig, host: RigHost, fits: (info: MigrationInfo) => boolean, what: string): Promise<void> {
  const monitor = await rig.observe(host, NAME);
  try {
    const ask = async () => (fits(await monitor.execute("query-migrate")) ? true : undefined);
    await eventually(ask, { timeoutMs: 20_000, what });
  } finally {
    monitor.close();
  }
}
