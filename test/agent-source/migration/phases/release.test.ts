/** Tests the state *releasing*: what is written and in which order, and which QEMU is ended. */
import { existsSync, writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import { release } from "../../../../agent-source/migration/phases/release.ts";
import type { State } from "../../../../agent-source/migration/source-state.ts";
import { qemuLogPath } from "../../../../shared/runtime/guest/guest-log.ts";
import { FakeQemu } from "../../../support/fake-qemu.ts";
import { RESUMED_POSTCOPY } from "../../../support/fake-resumed.ts";
import { loadedOf, migrating, until } from "../../../support/migrating.ts";
import { sourcePhase } from "../../../support/source-cx.ts";

type Releasing = Omit<State<"releasing">, "kind">;
const RUNNING = {
  epoch: 1,
  resumedAtUs: 1_300_000,
  grantedAtUs: 1_200_000,
  agentCpuSeconds: 2,
  agentPeakMemoryBytes: 9,
};

/** Releases a guest as an agent does that has started again, and so has no session. */
async function releasing(t: Test, status: string, state: Partial<Releasing> = {}) {
  const phase = await sourcePhase(t, status);
  const released = () => release({ kind: "releasing", paused: false, ...state }, phase.cx);
  return { ...phase, released };
}

t.test("`released` is written before the QEMU that is left here is told to quit", async (t) => {
  const { released, qemu, happened, record } = await releasing(t, "postmigrate");
  t.same(await released(), { kind: "released" });
  t.same(happened, ["journal: released", "qemu: quit"]);
  t.notOk(qemu.isAlive);
  t.ok(((await record())?.endedAtMs ?? 0) > 0);
});

t.test("a QEMU that has ended already is no fault", async (t) => {
  const { released, qemu, happened, cx } = await releasing(t, "gone");
  t.same(await released(), { kind: "released" });
  t.same([...happened, ...qemu.said, ...cx.report.degradations], ["journal: released"]);
});

t.test("the monitor's path that a killed QEMU has left is cleared, so that the guest can come back", async (t) => {
  const { released, qemu } = await releasing(t, "gone");
  // nobody listens at a file, as at the socket of a process that was killed
  writeFileSync(qemu.path, "");
  await released();
  t.notOk(existsSync(qemu.path));
});

t.test("the monitor's path stays where another QEMU of the guest listens there", async (t) => {
  const { released, qemu } = await releasing(t, "gone");
  await FakeQemu.start(t, { status: "inmigrate" }, qemu.path);
  t.same(await released(), { kind: "released" });
  t.ok(existsSync(qemu.path));
});

t.test("a guest that somebody has started here is not ended: it runs at both hosts", async (t) => {
  const { released, qemu } = await releasing(t, "running");
  t.match(await released(), {
    kind: "doubled",
    fault: { code: "two-copies", guestNow: /runs at both hosts/, advice: /--keep destination/ },
  });
  t.same(qemu.said, []);
  t.ok(qemu.isAlive);
});

t.test("the operator's word for the destination ends also a copy that runs here", async (t) => {
  const { released, qemu } = await releasing(t, "running", { overruled: true });
  t.same(await released(), { kind: "released" });
  t.notOk(qemu.isAlive);
});

t.test("the operator's word does not end a QEMU that is not this migration's", async (t) => {
  const { released, qemu } = await releasing(t, "gone", { overruled: true });
  const other = await FakeQemu.start(t, { status: "running" }, qemu.path);
  t.match(await released(), { kind: "doubled" });
  t.same(other.said, []);
  t.ok(other.isAlive);
});

t.test("a paused QEMU is ended only after a post-copy, in which this agent itself has paused it", async (t) => {
  const precopy = await releasing(t, "paused");
  t.same(await precopy.released(), { kind: "released" });
  t.ok(precopy.qemu.isAlive);
  t.match(precopy.cx.report.degradations, [
    /still there \(The QEMU of web is paused, not postmigrate\): end it, since it must not run the guest/,
  ]);
  for (const status of ["paused", "finish-migrate", "postmigrate"]) {
    const postcopy = await releasing(t, status, { postcopy: RESUMED_POSTCOPY });
    t.same(await postcopy.released(), { kind: "released" });
    t.notOk(postcopy.qemu.isAlive, status);
    t.ok((await postcopy.record())?.postcopy, "an agent that is killed now ends such a QEMU when it starts again");
  }
});

t.test("a QEMU that refuses to quit does not undo the move, and the operator is told not to start it", async (t) => {
  const { released, qemu, cx } = await releasing(t, "postmigrate");
  qemu.whim = ({ execute }) => (execute === "quit" ? "a device is busy" : undefined);
  t.same(await released(), { kind: "released" });
  t.match(cx.report.degradations, [/still there \(QEMU refused quit: a device is busy .*end it, since it must/]);
});

t.test("a disk that takes no record does not keep the QEMU here alive", async (t) => {
  const { released, qemu, failWrites } = await releasing(t, "postmigrate");
  failWrites(true);
  t.same(await released(), { kind: "released" });
  t.notOk(qemu.isAlive);
});

t.test("the log of the guest's earlier stay at this host goes with its QEMU", async (t) => {
  const { released, cx } = await releasing(t, "postmigrate");
  const log = qemuLogPath("web", cx.config.runtimeDirectory);
  writeFileSync(log, "from when the guest came here");
  await released();
  t.notOk(existsSync(log));
});

t.test("the result has the downtime by both hosts' clocks, and the session's monitor ends QEMU", async (t) => {
  const { session, qmp, cx, qemu, there } = await migrating(t, { status: "postmigrate" });
  t.same(await release({ kind: "releasing", paused: false, loaded: loadedOf(session), running: RUNNING }, cx), {
    kind: "released",
  });
  t.match(cx.report.result, {
    completed: true,
    downtime: { totalMs: 300, lastPagesMs: 10, deviceStateMs: 20, loadMs: 30, verifyMs: 0, commitMs: 240 },
    switchReason: "what is left fits the downtime",
    destinationAgentCpuSeconds: 2,
    verified: false,
  });
  t.notOk(qmp.isOpen);
  t.notOk(qemu.isAlive);
  t.equal(await there.link.closed, undefined, "the stream has ended in order");
});

t.test("the result says how often the link was lost", async (t) => {
  const { session, cx, there } = await migrating(t, { status: "postmigrate" });
  for (let cuts = 0; cuts < 2; cuts++) {
    there.cut();
    await until(() => session.channel.isCut, "the cut");
    there.dial();
  }
  await release({ kind: "releasing", paused: false, loaded: loadedOf(session), running: RUNNING }, cx);
  t.match(cx.report.result?.degradations, [/^The link was lost 2 times, for 0\.\d s in all$/]);
});

t.test("without the destination's time of the start there is no result, and the guest is released", async (t) => {
  const { session, cx } = await migrating(t, { status: "postmigrate" });
  const state = { kind: "releasing", paused: false, loaded: loadedOf(session) } as const;
  t.same(await release(state, cx), { kind: "released" });
  t.equal(cx.report.result, undefined);
});
