/**
 * Moves a guest that its operator has paused. No agent starts the guest, at either host, whatever happens on the way.
 */
import t, { type Test } from "tap";
import type { MigrationView } from "../../shared/protocol/report.ts";
import { untilGone } from "../fault/processes.ts";
import { assertOneGuest, processesOf } from "../support/after-migration.ts";
import { type HostAgents, listMigrations, startAgent } from "../support/agents.ts";
import { eventually } from "../support/bounded.ts";
import { ferryJson, migrate, requireMoved, slowLink, startMigrate } from "../support/ferry-json.ts";
import { guestDefinition } from "../support/guest.ts";
import { openPair } from "../support/pair.ts";
import type { Rig, RigHost } from "../support/rig.ts";

t.setTimeout(240_000);
const NAME = "still";
const WORKLOAD = { regionMiB: 16, fillMiB: 48, rate: 20e6 };
const HELD = { timeoutMs: 60_000 };
const BOOT = { timeoutMs: 60_000 };
const SLOW = 100e6;

/** Says a command to the guest's QEMU, if one is given. @returns the run state of that QEMU afterwards */
async function tell(rig: Rig, host: RigHost, word?: "stop" | "cont", name = NAME): Promise<string> {
  const monitor = await rig.observe(host, name);
  if (word !== undefined) await monitor.execute(word);
  const { status } = await monitor.execute("query-status");
  monitor.close();
  await monitor.closed;
  return status;
}

/** Checks that the guest's QEMU on a host is in a run state, and that the other host has no QEMU of the guest. */
async function assertPaused(t: Test, rig: Rig, at: RigHost, state = "paused"): Promise<void> {
  t.equal(await tell(rig, at), state, `the guest is ${state} at ${at.name}`);
  const gone = (): true | undefined => (processesOf(rig, rig.other(at), NAME).length === 0 ? true : undefined);
  await eventually(gone, { timeoutMs: 10_000, what: "the end of the other QEMU" });
  t.equal(processesOf(rig, at, NAME).length, 1, "one QEMU has the guest");
}

/** Says `cont` as the guest's operator, and checks that the guest finds its memory whole. */
async function assertGoesOn(t: Test, rig: Rig, at: RigHost): Promise<void> {
  t.equal(await tell(rig, at, "cont"), "running");
  await assertOneGuest(t, rig, { name: NAME, at });
}

async function restart(rig: Rig, agents: HostAgents, kind: "source" | "destination", extra: readonly string[] = []) {
  await agents[kind].stop();
  return { ...agents, [kind]: await startAgent(rig, agents.host, kind, extra) };
}

t.test("a paused guest moves, and stays paused", async (t) => {
  const pair = await openPair(t, { guest: { name: NAME, workload: WORKLOAD } });
  const { rig } = pair;
  let { a, b } = pair;

  await t.test("a paused guest arrives with its memory as it was, and goes on when its operator says so", async (t) => {
    t.equal(await tell(rig, rig.a, "stop"), "paused");
    const guests = await ferryJson(rig, a, ["guests"]);
    t.match(JSON.stringify(guests.answer), /"name":"still","state":"paused"/);
    const beats = rig.serial(rig.b, NAME).beats().length;
    const { result, negotiated } = requireMoved(await migrate(rig, a, b, NAME, ["--verify"]));
    t.match(negotiated, { strategy: "stop-and-copy (auto: the guest is paused)" });
    t.match(result, { paused: true, verified: true, switchReason: "the guest is paused: copied once" });
    t.match(
      result.downtime,
      { totalMs: 0, verifyMs: 0, clockErrorMs: 0 },
      "a guest that was paused all the time has no downtime",
    );
    await assertPaused(t, rig, rig.b);
    t.equal(rig.serial(rig.b, NAME).beats().length, beats, "the guest has not run at the destination");
    await assertGoesOn(t, rig, rig.b);
  });

  const slow = await slowLink(rig, SLOW);
  await t.test("a guest that is paused while it is copied arrives paused", async (t) => {
    const run = await startMigrate(rig, b, a, NAME, slow);
    await run.copying();
    t.equal(await tell(rig, rig.b, "stop"), "paused");
    const { result } = requireMoved(await run.end());
    t.match(result, { paused: true, switchReason: "the guest was paused while it was copied" });
    await assertPaused(t, rig, rig.a);
  });

  await t.test("a migration that is cancelled leaves the guest paused at the source", async (t) => {
    const run = await startMigrate(rig, a, b, NAME, ["--strategy", "precopy", ...slow]);
    const id = await run.copying();
    const { answer } = await ferryJson<MigrationView>(rig, a, ["cancel", id]);
    t.match(answer, { status: "cancelled", error: { guestNow: "the guest is at the source, paused as it was" } });
    t.equal((await run.end()).code, 3);
    await assertPaused(t, rig, rig.a);
  });

  await t.test("a guest that is resumed while it is copied arrives running", async (t) => {
    const run = await startMigrate(rig, a, b, NAME, slow);
    await run.copying();
    t.equal(await tell(rig, rig.a, "cont"), "running");
    const { result } = requireMoved(await run.end());
    t.match(result, { paused: false, degradations: [/resumed while it was copied/] });
    t.ok(result.downtime.totalMs > 0);
    await assertOneGuest(t, rig, { name: NAME, at: rig.b });
  });

  await t.test(
    "a guest that was paused while it was copied is not started when the source agent is killed with QEMU retired",
    async (t) => {
      b = await restart(rig, b, "source", ["--faults=hold-at=recording"]);
      const run = await startMigrate(rig, b, a, NAME, slow);
      const id = await run.copying();
      t.equal(await tell(rig, rig.b, "stop"), "paused");
      await b.source.waitForOutput(/"held":"recording"/, HELD);
      b.source.signal("SIGKILL");
      await b.source.ended;
      b = { ...b, source: await startAgent(rig, rig.b, "source") };
      const ended = async (): Promise<MigrationView | undefined> =>
        (await listMigrations(rig, b)).find((one) => one.id === id && one.status === "failed");
      const view = await eventually(ended, { timeoutMs: 30_000, what: "the end of the migration" });
      t.match(view.error, { code: "interrupted", guestNow: /paused as it was; its QEMU calls that postmigrate/ });
      await run.end();
      await assertPaused(t, rig, rig.b, "postmigrate");
      await assertGoesOn(t, rig, rig.b);
    },
  );
  await rig.network.setRate(1e9);

  await t.test("one QEMU has the guest, paused, after both agents were killed with the guest granted", async (t) => {
    t.equal(await tell(rig, rig.b, "stop"), "paused");
    a = await restart(rig, a, "destination", ["--faults=hold-at=starting"]);
    const run = await startMigrate(rig, b, a, NAME);
    const [, id] = await a.destination.waitForOutput(/"migration":"(\w+)"[^\n]*"held":"starting"/, HELD);
    for (const agent of [b.source, a.destination]) agent.signal("SIGKILL");
    await Promise.all([b.source.ended, a.destination.ended]);
    t.equal(await tell(rig, rig.b), "postmigrate");
    a = { ...a, destination: await startAgent(rig, rig.a, "destination") };
    b = { ...b, source: await startAgent(rig, rig.b, "source") };
    const moved = async (): Promise<true | undefined> =>
      (await listMigrations(rig, b)).some((one) => one.id === id && one.status === "moved") ? true : undefined;
    await eventually(moved, { timeoutMs: 30_000, what: "the end of the migration" });
    await run.end();
    await assertPaused(t, rig, rig.a);
    await assertGoesOn(t, rig, rig.a);
  });

  await t.test("a guest paused between the decision to switch and the acknowledgement arrives paused", async (t) => {
    a = await restart(rig, a, "source", ["--faults=hold-at=switching"]);
    const run = await startMigrate(rig, a, b, NAME);
    await a.source.waitForOutput(/"held":"switching"/, HELD);
    await tell(rig, rig.a, "stop");
    a.source.signal("SIGUSR2");
    const { result } = requireMoved(await run.end());
    t.match(result, {
      paused: true,
      switchReason: /^the residual fits: .*; the guest was paused while it was copied$/,
    });
    await assertPaused(t, rig, rig.b);
    requireMoved(await migrate(rig, b, a, NAME));
    await assertGoesOn(t, rig, rig.a);
  });

  await t.test("a paused guest that is refused after the grant stays paused until somebody says cont", async (t) => {
    t.equal(await tell(rig, rig.a, "stop"), "paused");
    b = await restart(rig, b, "destination", ["--faults=hold-at=owning"]);
    const run = await startMigrate(rig, a, b, NAME);
    await b.destination.waitForOutput(/"held":"owning"/, HELD);
    const pids = processesOf(rig, rig.b, NAME).map(({ pid }) => pid);
    for (const pid of pids) process.kill(pid, "SIGTERM");
    // the agent takes a QEMU that has not ended yet for one that may run the guest, and then it is in doubt where the
    // guest ran. A process that is ending has no command line any more, although it is still there
    await untilGone(pids);
    b.destination.signal("SIGUSR2");
    const { code, answer } = await run.end();
    t.match(
      { code, answer },
      { code: 1, answer: { error: { guestNow: /paused as it was; its QEMU calls that postmigrate/ } } },
    );
    await assertPaused(t, rig, rig.a, "postmigrate");
    await assertGoesOn(t, rig, rig.a);
  });

  await t.test("a guest that was never started waits for its first start at the destination", async (t) => {
    const definition = guestDefinition({ name: "fresh", memoryMiB: 128, workload: { regionMiB: 16, rate: 0 } });
    rig.writeDefinition(definition);
    await rig.startGuest(rig.a, definition, ["-S"]);
    const { result } = requireMoved(await migrate(rig, a, b, "fresh"));
    t.match(result, { paused: true, switchReason: "the guest is paused: copied once" });
    t.equal(await tell(rig, rig.b, undefined, "fresh"), "prelaunch");
    t.equal(await tell(rig, rig.b, "cont", "fresh"), "running");
    t.equal((await rig.serial(rig.b, "fresh").waitForBeats(5, BOOT)).errors, 0, "the guest boots");
  });
});
