/** A source agent that starts again, with each record that it may find and what QEMU may be doing. */
import { mkdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { SourceAgent } from "../../agent-source/source-agent.ts";
import { serveDestination } from "../../shared/link/grpc-server.ts";
import type { SettleAnswer, SettleCall } from "../../shared/protocol/messages.ts";
import { decodeSourceRecord, type SourceRecord } from "../../shared/protocol/ownership.ts";
import { isFinal, type MigrationView } from "../../shared/protocol/report.ts";
import { systemClock } from "../../shared/runtime/clock.ts";
import { loadSourceConfig } from "../../shared/runtime/config.ts";
import { Journal } from "../../shared/runtime/journal.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { createLogger } from "../../shared/runtime/log.ts";
import { TestFaults } from "../../shared/runtime/test-faults.ts";
import { eventually } from "../support/bounded.ts";
import { greeting, Monitor, type Script, serve } from "../support/fake-monitor.ts";
import { LIMITS, SERVE } from "../support/link.ts";

const ID = "0123456789ab";
const EARLIER = "ba9876543210";
const GREETING = greeting();

interface Found {
  readonly kind: SourceRecord["kind"];
  /** QEMU's run state; undefined: it has ended. */
  readonly qemu: string | undefined;
  /** Another record of the same guest, of a migration that began a millisecond earlier. */
  readonly earlier?: SourceRecord["kind"];
  /** What the destination says, question by question; the last one again and again. */
  readonly standings?: readonly SettleAnswer["standing"][];
  /** The record says that the guest was paused. */
  readonly paused?: boolean;
}

/** A QEMU that knows the few words that recovery needs. */
function fakeQemu(state: { status: string }, said: string[]): Script {
  return ({ execute, id }, monitor) => {
    if (!execute.startsWith("query")) said.push(execute);
    if (execute === "cont") state.status = "running";
    const answers: Record<string, unknown> = {
      "query-status": { status: state.status, running: state.status === "running" },
      "query-migrate": { status: "completed" },
    };
    monitor.reply({ return: answers[execute] ?? {}, id });
    if (execute === "quit") monitor.socket.end();
  };
}

/** Starts an agent on a journal with that record. */
async function startAgain(t: Test, { kind, qemu, earlier, standings, paused = false }: Found) {
  const said: string[] = [];
  const asked: string[] = [];
  /** Questions with which the guest is granted paused. */
  const granted: string[] = [];
  const state = { status: qemu ?? "" };
  const directory = t.testdir({});
  const qmp =
    qemu === undefined
      ? join(tmpdir(), "ferry-nobody-listens.qmp")
      : await serve(t, (socket) => new Monitor(socket, fakeQemu(state, said)).reply(GREETING));
  const settle = async ({ ask, paused }: SettleCall): Promise<SettleAnswer> => {
    asked.push(ask);
    if (paused) granted.push(ask);
    const at = Math.min(asked.filter((one) => one === "grant").length, standings?.length ?? 0) - 1;
    return { standing: standings?.[Math.max(0, at)] ?? "unknown", reason: "so it is" };
  };
  const handshake = async (): Promise<never> => Promise.reject(new TypeError("not expected"));
  const listener = await serveDestination({ handshake, settle }, SERVE);
  t.teardown(() => listener.close(0));
  for (const name of ["guests", "state", "run"]) mkdirSync(join(directory, name));
  const guest = JSON.stringify({ name: "web", qmp, command: ["qemu"] });
  const places = ["guests", "runtime", "state"].map(
    (name) => `--${name}-directory=${join(directory, name === "runtime" ? "run" : name)}`,
  );
  writeFileSync(join(directory, "guests", "web.json"), guest);
  const journal = await Journal.open<SourceRecord>(join(directory, "state"), decodeSourceRecord);
  const grant = { token: "aa".repeat(16), epoch: 1, paused };
  const settings = { capabilities: { events: false }, parameters: { "downtime-limit": 300 } };
  const record = { guest: "web", destination: listener.address, startedAtMs: 2, grant, settings };
  await journal.write(ID, { kind, ...record });
  if (earlier !== undefined) await journal.write(EARLIER, { kind: earlier, ...record, startedAtMs: 1 });
  const log = createLogger("test", "silent");
  const config = loadSourceConfig(places, {});
  const parts = { config, clock: systemClock, log, journal, limits: LIMITS, createKernels: loadKernels };
  const agent = new SourceAgent({ ...parts, faults: new TestFaults() });
  await agent.recover();
  t.teardown(() => agent.stop());
  const end = (): Promise<MigrationView> =>
    eventually(() => (isFinal(agent.getMigration(ID).status) ? agent.getMigration(ID) : undefined), {
      timeoutMs: 10_000,
      what: "its end",
    });
  return { agent, said, asked, granted, end, record: () => journal.read(ID) };
}

t.test("nothing was granted: the guest runs on, QEMU's settings are put back, the destination is told", async (t) => {
  const running = await startAgain(t, { kind: "plan", qemu: "running" });
  t.match(await running.end(), {
    status: "failed",
    error: { code: "interrupted", guestNow: "the guest runs at the source" },
  });
  t.same(running.said, ["migrate-set-capabilities", "migrate-set-parameters"], "it is not resumed a second time");
  t.match(await running.record(), { kind: "kept", reason: { code: "interrupted" } });
  t.same(running.asked, ["withdraw"]);
  const retired = await startAgain(t, { kind: "plan", qemu: "postmigrate" });
  t.match(await retired.end(), { status: "failed", error: { guestNow: "the guest runs at the source" } });
  t.equal(retired.said[0], "cont");
});

t.test("a guest whose QEMU has ended is told to be gone, and one in a state of its own is left in it", async (t) => {
  const gone = await startAgain(t, { kind: "plan", qemu: undefined });
  t.match(await gone.end(), { status: "failed", error: { guestNow: /is gone: its QEMU at the source has ended/ } });
  const paused = await startAgain(t, { kind: "plan", qemu: "paused" });
  t.match(await paused.end(), { status: "failed", error: { guestNow: /says that it is paused/ } });
  t.notOk(paused.said.includes("cont"), "whoever paused it had a reason");
});

t.test("granted: only the destination's word ends it, one way or the other", async (t) => {
  const moved = await startAgain(t, { kind: "granted", qemu: "postmigrate", standings: ["starting", "running"] });
  t.equal(moved.agent.getMigration(ID).status, "inDoubt");
  t.match(await moved.end(), { status: "moved" });
  t.same(moved.said, ["quit"]);
  t.match(await moved.record(), { kind: "released" });
  const refused = await startAgain(t, { kind: "granted", qemu: "postmigrate", standings: ["refused"] });
  t.match(await refused.end(), { status: "failed", error: { guestNow: "the guest runs at the source" } });
  t.equal(refused.said[0], "cont");
  const resumed = await startAgain(t, { kind: "granted", qemu: "running", standings: ["unknown"] });
  t.match(await resumed.end(), { status: "failed", error: { guestNow: "the guest runs at the source" } });
});

t.test("a guest that was paused is never started, whatever QEMU and the destination say", async (t) => {
  for (const [qemu, guestNow] of [
    ["paused", /paused as it was$/],
    ["prelaunch", /paused as it was$/],
    ["postmigrate", /paused as it was; its QEMU calls that postmigrate/],
  ] as const) {
    const found = await startAgain(t, { kind: "plan", qemu, paused: true });
    t.match(await found.end(), { status: "failed", error: { guestNow } });
    t.same(found.said, ["migrate-set-capabilities", "migrate-set-parameters"], qemu);
  }
  const refused = await startAgain(t, { kind: "granted", qemu: "postmigrate", standings: ["refused"], paused: true });
  t.match(await refused.end(), { status: "failed", error: { guestNow: /calls that postmigrate, and cont starts it/ } });
  t.notOk(refused.said.includes("cont"));
  t.same(refused.granted, ["grant"], "it is granted as what it was");
  const resumed = await startAgain(t, { kind: "plan", qemu: "running", paused: true });
  t.match(await resumed.end(), { error: { guestNow: "the guest runs at the source" } }, "somebody resumed it");
});

t.test("a destination that cannot tell leaves it in doubt, until the operator's confirmed word", async (t) => {
  const { agent, said, end } = await startAgain(t, { kind: "granted", qemu: "postmigrate", standings: ["lost"] });
  const call = { id: ID, keep: "source", confirmed: false } as const;
  await t.rejects(agent.resolve(call), { code: "needs-confirmation" });
  t.equal(agent.getMigration(ID).status, "inDoubt");
  t.match(agent.getMigration(ID).error, { code: "in-doubt", guestNow: /paused at the source/ });
  await t.rejects(agent.cancel(ID), { code: "too-late" });
  t.same(said, [], "QEMU is left alone");
  t.match(await agent.resolve({ ...call, confirmed: true }), { status: "failed" });
  t.match(await end(), { error: { guestNow: "the guest runs at the source" } });
});

t.test("a record that a full disk left behind does not resume a guest that was granted since", async (t) => {
  const found: Found = { kind: "granted", qemu: "postmigrate", earlier: "plan", standings: ["unknown"] };
  const { agent, said } = await startAgain(t, found);
  t.match(agent.listMigrations(), [
    { id: EARLIER, status: "failed" },
    { id: ID, status: "inDoubt" },
  ]);
  t.same(said, [], "QEMU is left alone");
});

t.test("what has ended is known, and nothing is done", async (t) => {
  for (const [kind, status] of [
    ["released", "moved"],
    ["kept", "failed"],
  ] as const) {
    const { agent, said, asked } = await startAgain(t, { kind, qemu: "postmigrate" });
    t.match(agent.listMigrations(), [{ id: ID, guest: "web", status }]);
    t.same([...said, ...asked], []);
  }
});
