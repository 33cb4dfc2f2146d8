/**
 * Cancels migrations and stops agents at many moments: while the link is down, while QEMU hangs, twice at once. Once
 * the guest is granted it is too late to cancel.
 */
import t from "tap";
import type { MigrationErrorView, MigrationView } from "../../shared/protocol/report.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { agentAddress, type HostAgents, listMigrations, startAgent } from "../support/agents.ts";
import { eventually } from "../support/bounded.ts";
import { ferryJson, migrate, requireMoved, slowLink, startMigrate } from "../support/ferry-json.ts";
import { openPair } from "../support/pair.ts";
import type { RigProcess } from "../support/process.ts";
import type { Rig, RigHost } from "../support/rig.ts";

t.setTimeout(240_000);
const NAME = "stopped";
const WORKLOAD = { regionMiB: 32, fillMiB: 128, rate: 10e6 };
const HELD = { timeoutMs: 60_000 };
/** The longest time in which an agent that is stopped ends, milliseconds, with `shutdown.grace` at its default. */
const ENDS_WITHIN_MS = 35_000;

const signal = ({ pid }: { pid: number }, name: NodeJS.Signals): boolean => process.kill(pid, name);

/** Puts an agent with other settings in place of one of `agents`. @returns the agents of the host afterwards */
async function restart(rig: Rig, agents: HostAgents, kind: "source" | "destination", extra: readonly string[] = []) {
  await agents[kind].stop();
  const agent = await startAgent(rig, agents.host, kind, extra);
  return { ...agents, [kind]: agent };
}

async function endOf(rig: Rig, agents: HostAgents, id: string): Promise<MigrationView> {
  return eventually(
    async () => {
      const view = (await listMigrations(rig, agents)).find((one) => one.id === id);
      return view !== undefined && ["moved", "failed", "cancelled"].includes(view.status) ? view : undefined;
    },
    { timeoutMs: 60_000, what: `the end of ${id}` },
  );
}

/** The QEMU of the guest on a host. */
function qemuOn(rig: Rig, host: RigHost): { pid: number } {
  const found = rig.qemus().find(({ command }) => command.includes(`${host.runtimeDirectory}/`));
  if (found === undefined) throw new Error(`no QEMU on ${host.name}`);
  return found;
}

t.test("a migration that is not granted yet ends in order when it is cancelled or an agent is stopped", async (t) => {
  const pair = await openPair(t, { guest: { name: NAME, workload: WORKLOAD } });
  const { rig, b } = pair;
  let { a } = pair;
  const slow = ["--strategy", "precopy", ...(await slowLink(rig, 100e6))];

  await t.test("two calls cancel while the link is down", { skip: rig.network.kind === "loopback" }, async (t) => {
    const run = await startMigrate(rig, a, b, NAME, slow);
    const id = await run.copying();
    await rig.network.setConnected(false);
    const both = await Promise.all([1, 2].map(() => ferryJson<MigrationView>(rig, a, ["cancel", id])));
    for (const { code, answer } of both) t.match({ code, answer }, { code: 0, answer: { status: "cancelled" } });
    t.equal((await run.end()).code, 3);
    await rig.network.setConnected(true);
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
  });

  await t.test("ferry cancel is answered while QEMU hangs, and the migration ends when QEMU goes on", async (t) => {
    const run = await startMigrate(rig, a, b, NAME, slow);
    const id = await run.copying();
    const qemu = qemuOn(rig, rig.a);
    signal(qemu, "SIGSTOP");
    try {
      const { answer } = await ferryJson<MigrationView>(rig, a, ["cancel", id]);
      t.match(answer, { status: "undoing", error: { guestNow: /cannot be confirmed|being made to run/ } });
    } finally {
      signal(qemu, "SIGCONT");
    }
    const { code, answer } = await run.end();
    t.match({ code, answer }, { code: 3, answer: { status: "cancelled", error: { guestNow: /runs at the source/ } } });
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
  });

  await t.test("SIGTERM to the destination agent ends the migration at once, and the agent in order", async (t) => {
    const run = await startMigrate(rig, a, b, NAME, slow);
    await run.copying();
    t.match(await stopped(b.destination), { code: 0 });
    t.match((await run.end()).answer, { status: "failed", error: { guestNow: /runs at the source/ } });
    await startAgent(rig, rig.b, "destination");
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
  });

  await t.test("SIGTERM to the source agent aborts the migration, and the agent ends in order", async (t) => {
    const run = await startMigrate(rig, a, b, NAME, slow);
    await run.copying();
    t.match(await stopped(a.source), { code: 0 });
    a = { ...a, source: await startAgent(rig, rig.a, "source") };
    await run.end();
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
  });

  await t.test("ferry cancel says that it is too late once the guest is granted", async (t) => {
    await rig.network.setRate(1e9);
    a = await restart(rig, a, "source", ["--faults=hold-at=granting"]);
    const run = await startMigrate(rig, a, b, NAME);
    const [, id] = await a.source.waitForOutput(/"migration":"(\w+)"[^\n]*"held":"granting"/, HELD);
    const { code, answer } = await ferryJson<{ error: MigrationErrorView }>(rig, a, ["cancel", id!]);
    t.match({ code, answer }, { code: 1, answer: { error: { code: "too-late", message: /being handed over/ } } });
    signal(a.source, "SIGUSR2");
    requireMoved(await run.end());
    await assertOneGuest(t, rig, { name: NAME, at: rig.b });
  });

  await t.test("with shutdown.migrations=finish a stopped agent finishes what it began", async (t) => {
    await rig.network.setRate(200e6);
    const finishing = await restart(rig, b, "source", ["--shutdown-migrations=finish"]);
    const run = await startMigrate(rig, finishing, a, NAME);
    const id = await run.copying();
    t.match(await stopped(finishing.source), { code: 0 });
    await startAgent(rig, rig.b, "source");
    t.match(await endOf(rig, b, id).catch((thrown: unknown) => thrown), { status: "moved" });
    await run.end();
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
  });
  t.equal(agentAddress(rig, rig.a, "source"), a.sourceAddress);
  requireMoved(await migrate(rig, a, b, NAME));
});

async function stopped(agent: RigProcess): Promise<unknown> {
  const began = performance.now();
  const end = await agent.stop();
  if (performance.now() - began > ENDS_WITHIN_MS) throw new Error(`${agent.name} took too long`);
  return end;
}
