/**
 * Tests the state *keeping*: what is written, said and started, in which order, depending on how far the migration had
 * come.
 */
import { rmSync } from "node:fs";
import t, { type Test } from "tap";
import { keep } from "../../../../agent-source/migration/phases/keep.ts";
import { type Undo, undoSession } from "../../../../agent-source/migration/source-state.ts";
import { MigrationFault } from "../../../../shared/fault.ts";
import { QmpClient } from "../../../../shared/qemu/qmp/qmp-client.ts";
import { loadGuest } from "../../../../shared/runtime/guest/guest-definition.ts";
import { eventually } from "../../../support/bounded.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { FakeQemu } from "../../../support/fake-qemu.ts";
import { migrating, passing, until } from "../../../support/migrating.ts";
import { sourcePhase } from "../../../support/source-cx.ts";

const FAULT = new MigrationFault("peer-lost", "The link was down for too long");
const UNDO: Undo = {
  ...{ touched: true, accepted: true, paused: false },
  ...{ mayBeWhole: true, isRetired: true, granted: "no" },
};
const RUNS = "the guest runs at the source";
const WITHIN = { timeoutMs: 10_000 };

async function keeping(t: Test, status: string, undo: Partial<Undo> = {}) {
  const phase = await sourcePhase(t, status);
  const kept = () => keep({ kind: "keeping", fault: FAULT, undo: { ...UNDO, ...undo } }, phase.cx);
  return { ...phase, kept };
}

t.test("a retired guest is started, and the destination is told until it has heard it", async (t) => {
  const heard = await keeping(t, "postmigrate");
  heard.destination.answersInTurn(["refused"]);
  // the destination may hear this before the guest is seen to run, or after: each end is right
  const end = await heard.kept();
  t.match(end, { kind: /^(kept|withdrawing)$/, fault: { code: "peer-lost", guestNow: RUNS } });
  t.same(heard.qemu.said, ["cont"]);
  const deaf = await keeping(t, "postmigrate");
  deaf.destination.answersInTurn(["waiting"]);
  t.match(await deaf.kept(), { kind: "withdrawing", fault: { guestNow: RUNS } });
  t.match(await deaf.record(), { kind: "kept", untold: true, reason: { code: "peer-lost" } });
  t.match(deaf.destination.calls[0], { ask: "withdraw" });
});

t.test("a destination that does not have the whole guest is told once, and not waited for", async (t) => {
  const { kept, destination, record } = await keeping(t, "running", { isRetired: false, mayBeWhole: false });
  destination.answersInTurn(["waiting"]);
  t.match(await kept(), { kind: "kept", fault: { guestNow: RUNS } });
  t.notOk((await record())?.untold);
});

t.test("a destination that was never asked is told nothing", async (t) => {
  const undo = { touched: false, accepted: false, isRetired: false, mayBeWhole: false };
  const { kept, destination, qemu } = await keeping(t, "running", undo);
  t.match(await kept(), { kind: "kept", fault: { guestNow: "the guest was not touched" } });
  t.same([...destination.asked, ...qemu.said], []);
});

t.test("when QEMU has ended and the destination may be whole, nothing is said: the guest is orphaned", async (t) => {
  const { kept, destination, written } = await keeping(t, "gone");
  t.match(await kept(), { kind: "orphaned", fault: { code: "peer-lost" } });
  t.same([...destination.asked, ...written], []);
});

t.test("a refused grant is overwritten in the journal before the guest is started", async (t) => {
  const { kept, qemu, written } = await keeping(t, "postmigrate", { granted: "givenBack" });
  qemu.whim = ({ execute }) => {
    if (execute === "cont") t.same(written, ["plan"]);
    return undefined;
  };
  t.match(await kept(), { fault: { guestNow: RUNS } });
  t.same(qemu.said, ["cont"]);
  t.same(written, ["plan", "kept"]);
});

t.test("a guest whose refusal was heard is started although the disk takes no record", async (t) => {
  const { kept, qemu, failWrites, record } = await keeping(t, "postmigrate", { granted: "givenBack" });
  failWrites(true);
  t.match(await kept(), { fault: { guestNow: RUNS } });
  t.same(qemu.said, ["cont"]);
  t.equal(await record(), undefined, "nothing was written, so the next start of the agent finds what was there");
});

t.test("with an unsent grant the guest is started once the disk takes `kept` or the destination refuses", async (t) => {
  const { kept, qemu, failWrites, destination, cx } = await keeping(t, "postmigrate", { granted: "unsaid" });
  failWrites(true);
  destination.answersInTurn(["waiting"]);
  const end = kept();
  await destination.untilAsked(3);
  t.same(qemu.said, [], "an agent that starts again would find `granted`, and grant the guest");
  t.match(cx.report.view().error, { guestNow: /paused at the source until the journal can be written/ });
  destination.answersInTurn(["refused"]);
  t.match(await end, { fault: { guestNow: RUNS } });
  t.same(qemu.said, ["cont"]);
  const written = await keeping(t, "postmigrate", { granted: "unsaid" });
  written.destination.answersInTurn(["waiting"]);
  written.failWrites(true);
  const other = written.kept();
  await written.destination.untilAsked(2);
  written.failWrites(false);
  t.match(await other, { kind: "withdrawing", fault: { guestNow: RUNS } });
  t.same(written.written, ["plan", "kept"]);
});

t.test("a guest that the destination runs is not started at the source too", async (t) => {
  const { kept, qemu, failWrites, destination, cx } = await keeping(t, "postmigrate", { granted: "unsaid" });
  failWrites(true);
  destination.answersInTurn(["running"]);
  kept().catch(() => undefined);
  await destination.untilAsked(2);
  const told = (): true | undefined =>
    /until the journal can be written/.test(cx.report.view().error?.guestNow ?? "") ? true : undefined;
  await eventually(told, { ...WITHIN, what: "the operator to be told" });
  t.same(qemu.said, []);
});

t.test("a QEMU that refuses cont is asked again, and the operator sees why", async (t) => {
  const { kept, qemu, cx } = await keeping(t, "postmigrate");
  let refusals = 2;
  qemu.whim = ({ execute }) => (execute === "cont" && refusals-- > 0 ? 'Failed to get "write" lock' : undefined);
  const end = kept();
  const told = (): true | undefined =>
    /cannot be confirmed to run .*"write" lock/.test(cx.report.view().error?.guestNow ?? "") ? true : undefined;
  await eventually(told, { ...WITHIN, what: "the reason why the guest does not run yet" });
  t.match(await end, { fault: { guestNow: RUNS } });
  t.same(qemu.said, ["cont", "cont", "cont"]);
});

/**
 * Makes a QEMU that has written its stream and waits for SHUT, and notes what the agent does with the stream, in order.
 */
async function awaitingShut(t: Test) {
  const phase = await sourcePhase(t, "finish-migrate");
  const { cx, qemu } = phase;
  qemu.state.migration = "device";
  const { qmp: path } = await loadGuest("web", cx.config);
  const qmp = await QmpClient.connect(path);
  await cx.qemu.meet(qmp, path);
  const did: string[] = [];
  const session = {
    awaitsShut: true,
    shut: () => {
      did.push(`shut behind ${phase.written.join(", ")}`);
      qemu.state.status = "postmigrate";
      qemu.state.migration = "completed";
      session.awaitsShut = false;
    },
    stop: async () => void did.push("closed"),
  };
  qemu.whim = ({ execute }) => {
    if (execute !== "migrate_cancel") return undefined;
    qemu.state.migration = "cancelled";
    qemu.become("running");
    return undefined;
  };
  const kept = () => keep({ kind: "keeping", fault: FAULT, undo: { ...UNDO, qmp, session } }, cx);
  return { ...phase, kept, did };
}

t.test(
  "a QEMU that waits for SHUT is told to complete, since it could run the guest without locked images",
  async (t) => {
    const { kept, qemu, did, destination } = await awaitingShut(t);
    destination.answersInTurn(["refused"]);
    t.match(await kept(), { fault: { guestNow: RUNS } });
    t.same(did, ["shut behind plan", "closed"]);
    t.same(qemu.said, ["cont"], "the migration is not cancelled");
  },
);

t.test(
  "a QEMU is not told to complete when the disk takes no record, since no agent would then start the guest",
  async (t) => {
    const { kept, qemu, did, failWrites, destination } = await awaitingShut(t);
    destination.answersInTurn(["refused"]);
    failWrites(true);
    t.match(await kept(), { fault: { guestNow: RUNS } });
    t.same(did, ["closed"]);
    t.same(qemu.said, ["migrate_cancel"]);
  },
);

t.test(
  "another QEMU beside the guest's own is looked at with pauses, so that others can use its monitor",
  async (t) => {
    const clock = new FakeClock();
    const { cx, qemu, leave } = await sourcePhase(t, "postmigrate", { clock });
    const { qmp: path } = await loadGuest("web", cx.config);
    const own = await QmpClient.connect(path);
    await cx.qemu.meet(own, path);
    rmSync(path);
    const other = await FakeQemu.start(t, { status: "running" }, path);
    const looksMs: number[] = [];
    other.whim = ({ execute }) => {
      if (execute === "query-status") looksMs.push(clock.monotonicMs());
      return undefined;
    };
    const kept = keep({ kind: "keeping", fault: FAULT, undo: { ...UNDO, qmp: own, mayBeWhole: false } }, cx);
    kept.catch(() => undefined);
    await passing(
      clock,
      until(() => looksMs.length > 2, "the third look at the other QEMU"),
      10,
    );
    const [first = 0, second = 0, third = 0] = looksMs;
    t.ok(second - first >= 250 && third - second >= 500, `the looks came after ${looksMs.join(", ")} ms`);
    t.same(qemu.said, [], "nothing is started beside the other QEMU");
    leave();
    await t.rejects(passing(clock, kept), { code: "stopping" });
  },
);

t.test("the destination hears over the stream why the guest stays here, and no grant can follow", async (t) => {
  const { session, there, cx, destination } = await migrating(t, { stream: {} });
  destination.answersInTurn(["refused"]);
  const end = keep({ kind: "keeping", fault: FAULT, undo: undoSession(session, "copying") }, cx);
  const failure = await there.until("failure");
  t.match(failure, { code: "peer-lost", message: FAULT.message });
  t.equal(failure.refusedToken.length, 0, "only a destination refuses a grant");
  t.match(await end, { kind: "kept", fault: { guestNow: RUNS } });
  t.equal(await session.channel.closed, undefined, "the stream has ended in order");
});

t.test(
  "a QEMU that has not completed 10 s after SHUT loses its stream, and then runs the guest by itself",
  async (t) => {
    const clock = new FakeClock();
    const { session, cx, happened, destination, there } = await migrating(t, { clock, stream: { completes: false } });
    destination.answersInTurn(["refused"]);
    session.letStop();
    await session.endWhenRead();
    await there.until("endOfStream");
    await until(() => happened.includes("qemu: migrate-set-parameters"), "all that QEMU is told for the stop");
    happened.length = 0;
    const end = keep({ kind: "keeping", fault: FAULT, undo: undoSession(session, "whole") }, cx);
    t.match(await passing(clock, end), { fault: { guestNow: RUNS } });
    t.ok(clock.monotonicMs() >= 10_000);
    const order = happened.filter((one) => !/^(call|link): /.test(one));
    t.same(order.slice(0, 2), ["journal: plan retiring", "qemu hears: shut 0"]);
    t.notOk(order.includes("qemu: cont"));
  },
);

t.test("an orphaned guest's destination does not hear over the stream that the migration has failed", async (t) => {
  const { session, there, cx, qemu, destination } = await migrating(t, { stream: {} });
  await qemu.end();
  t.match(await keep({ kind: "keeping", fault: FAULT, undo: undoSession(session, "whole") }, cx), { kind: "orphaned" });
  t.match(await session.channel.closed, { code: "peer-lost" });
  t.same([...there.kinds.filter((kind) => kind === "failure"), ...destination.asked], []);
});

t.test(
  "a guest whose QEMU has ended before the destination was whole is gone, and the operator is told so",
  async (t) => {
    const { kept, record, cx } = await keeping(t, "gone", { mayBeWhole: false, isRetired: false });
    t.match(await kept(), { kind: "kept", fault: { guestNow: "the guest is gone: its QEMU at the source has ended" } });
    t.match(await record(), { kind: "kept", reason: { code: "peer-lost" } });
    t.match(cx.report.view().error, { guestNow: "the guest is being made to run at the source" });
  },
);

t.test("a postmigrate QEMU is not started once the guest was seen to run after the grant", async (t) => {
  const { kept, qemu, cx } = await keeping(t, "postmigrate", { granted: "givenBack" });
  cx.doubt.isWithdrawn = true;
  t.match(await kept(), { fault: { guestNow: /which this agent did not bring about/ } });
  t.same(qemu.said, []);
});

t.test("a paused guest is left paused, and its destination is told as that of a running one", async (t) => {
  const { kept, qemu, destination, record } = await keeping(t, "postmigrate", { paused: true });
  destination.answersInTurn(["waiting"]);
  t.match(await kept(), { kind: "withdrawing", fault: { guestNow: /paused as it was/ } });
  t.same(qemu.said, []);
  t.match(await record(), { kind: "kept", untold: true });
});
