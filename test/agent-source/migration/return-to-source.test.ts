/**
 * Tests how the guest is made to be at the source again: what is said to its QEMU in each run state, and in which words
 * the operator is told where the guest is.
 */
import t, { type Test } from "tap";
import { OwnQemu } from "../../../agent-source/guest/own-qemu.ts";
import { runAtSource } from "../../../agent-source/migration/return-to-source.ts";
import { sourceRecord } from "../../../agent-source/migration/source-context.ts";
import type { Undo } from "../../../agent-source/migration/source-state.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { FAKE_SETTINGS } from "../../support/fake-guest-facts.ts";
import { FakeQemu } from "../../support/fake-qemu.ts";
import { RESUMED_POSTCOPY } from "../../support/fake-resumed.ts";
import { passing, until } from "../../support/migrating.ts";
import { sourcePhase } from "../../support/source-cx.ts";

/** What has to be undone of a migration that has retired a QEMU whose guest ran. */
const UNDO: Undo = {
  ...{ touched: true, accepted: true, mayBeWhole: true, isRetired: true },
  ...{ granted: "no", paused: false },
};
const RUNS = "the guest runs at the source";

/** Returns a guest. The operator sees an error, in which the agent says where the guest is. */
async function returning(t: Test, status: string, undo: Partial<Undo> = {}) {
  const clock = new FakeClock();
  const phase = await sourcePhase(t, status, { clock });
  const { cx } = phase;
  cx.report.failed(new MigrationFault("cancelled", "by the operator"), "");
  const returned = () => runAtSource({ ...UNDO, ...undo }, cx);
  const told = (what: RegExp) => until(() => what.test(cx.report.view().error?.guestNow ?? ""), String(what));
  return { ...phase, clock, returned, told };
}

interface Case {
  readonly title: string;
  readonly status: string;
  readonly undo?: Partial<Undo>;
  readonly guestNow: string | RegExp;
  /** What QEMU is told. @default nothing */
  readonly said?: readonly string[];
}

const PAUSED = { paused: true };
const AS_IT_WAS = "the guest is at the source, paused as it was";
const CASES: readonly Case[] = [
  { title: "a guest that runs is left alone", status: "running", guestNow: RUNS },
  {
    title: "a guest that this migration has retired is started",
    status: "postmigrate",
    guestNow: RUNS,
    said: ["cont"],
  },
  {
    title: "a guest that somebody else has migrated may run at another host, and is not started",
    ...{ status: "postmigrate", undo: { isRetired: false } },
    guestNow: /somebody else has migrated the guest; nothing starts it here$/,
  },
  {
    title: "a paused guest that was retired is not started, and the operator is told what would start it",
    ...{ status: "postmigrate", undo: PAUSED },
    guestNow: /paused as it was; its QEMU calls that postmigrate, and cont starts it$/,
  },
  { title: "a guest that its operator had paused stays paused", status: "paused", undo: PAUSED, guestNow: AS_IT_WAS },
  { title: "a guest that was never started stays so", status: "prelaunch", undo: PAUSED, guestNow: AS_IT_WAS },
  {
    title: "a guest that this agent has paused for post-copy is started",
    ...{ status: "paused", undo: { postcopy: RESUMED_POSTCOPY }, guestNow: RUNS, said: ["cont"] },
  },
  {
    title: "a guest that its operator has paused meanwhile is not started",
    ...{ status: "paused", guestNow: "the guest is at the source, and its QEMU says that it is paused" },
  },
  {
    title: "a guest that stands still for a reason of its own is not started",
    ...{ status: "io-error", guestNow: "the guest is at the source, and its QEMU says that it is io-error" },
  },
];
for (const { title, status, undo = {}, guestNow, said = [] } of CASES)
  t.test(title, async (t) => {
    const { returned, qemu, clock } = await returning(t, status, undo);
    t.match(await passing(clock, returned()), { kind: "here", guestNow });
    t.same(qemu.said, said);
  });

t.test("QEMU's settings are put back when its migration has ended, and the monitor is free afterwards", async (t) => {
  const { returned, qemu, clock } = await returning(t, "postmigrate", { settings: FAKE_SETTINGS });
  await passing(clock, returned());
  t.same(qemu.said, ["cont", "migrate-set-capabilities", "migrate-set-parameters"]);
  await until(() => qemu.clients === 0, "the end of the connection");
});

t.test("a QEMU that is on its way to another state is waited for, and told nothing", async (t) => {
  const { returned, qemu, clock } = await returning(t, "finish-migrate");
  const end = returned();
  let looks = 0;
  qemu.whim = ({ execute }) => {
    if (execute === "query-status" && ++looks === 3) qemu.state.status = "running";
    return undefined;
  };
  t.match(await passing(clock, end), { guestNow: RUNS });
  t.same(qemu.said, []);
});

t.test("a migration that QEMU does not end within 15 s is cancelled", async (t) => {
  const { returned, qemu, clock } = await returning(t, "running");
  qemu.state.migration = "active";
  qemu.onSaid = ({ execute }) => {
    if (execute === "migrate_cancel") qemu.state.migration = "cancelled";
  };
  t.match(await passing(clock, returned(), 500), { guestNow: RUNS });
  t.same(qemu.said, ["migrate_cancel"]);
  t.ok(clock.monotonicMs() >= 15_000);
});

t.test("a QEMU whose migration does not even end by a cancel is tried on, and the operator sees that", async (t) => {
  const { returned, qemu, clock, told } = await returning(t, "finish-migrate");
  qemu.state.migration = "active";
  const end = returned();
  await passing(
    clock,
    told(/cannot be confirmed to run \(The source QEMU stays finish-migrate, and its migration active\)/),
    500,
  );
  qemu.state.migration = "cancelled";
  qemu.become("running");
  t.match(await passing(clock, end), { guestNow: RUNS });
});

t.test("the guest is not started while the journal says that it was granted", async (t) => {
  const { returned, qemu, clock, told, cx } = await returning(t, "postmigrate");
  await cx.journal.write(cx.id, sourceRecord(cx, "granted"));
  const end = returned();
  await passing(clock, told(/The journal says that web is granted, so the agent does not start it/));
  t.same(qemu.said, []);
  await cx.journal.write(cx.id, sourceRecord(cx, "plan"));
  t.match(await passing(clock, end), { guestNow: RUNS });
});

t.test("a guest whose grant was refused is started, whatever the journal could still not say", async (t) => {
  const { returned, qemu, clock, cx } = await returning(t, "postmigrate", { granted: "givenBack" });
  await cx.journal.write(cx.id, sourceRecord(cx, "granted"));
  t.match(await passing(clock, returned()), { guestNow: RUNS });
  t.same(qemu.said, ["cont"]);
});

t.test("a monitor that another client holds is tried on until it is free", async (t) => {
  const { returned, qemu, clock, told } = await returning(t, "postmigrate");
  qemu.greets = false;
  const end = returned();
  await passing(clock, told(/did not greet/), 1000);
  t.same(qemu.said, []);
  qemu.greets = true;
  t.match(await passing(clock, end), { guestNow: RUNS });
});

t.test("a guest whose QEMU has ended is gone, and another QEMU of it is named and left alone", async (t) => {
  const gone = await returning(t, "gone");
  t.match(await passing(gone.clock, gone.returned()), {
    kind: "gone",
    guestNow: "the guest is gone: its QEMU at the source has ended",
  });
  const beside = await returning(t, "gone");
  const other = await FakeQemu.start(t, { status: "running" }, beside.qemu.path);
  t.match(await beside.returned(), {
    kind: "gone",
    guestNow: /another QEMU of the guest, which this migration does not touch/,
  });
  t.same(other.said, []);
});

t.test("a QEMU that ends while the agent tries is gone", async (t) => {
  const { returned, qemu, clock } = await returning(t, "finish-migrate");
  const end = returned();
  await qemu.end();
  t.match(await passing(clock, end), { kind: "gone" });
});

t.test("for a record that names no process nothing is said to any QEMU", async (t) => {
  const { cx, qemu } = await returning(t, "postmigrate");
  const nameless = { ...cx, qemu: new OwnQemu("web", cx.config, cx.clock) };
  t.match(await runAtSource(UNDO, nameless), { kind: "here", guestNow: /an older agent wrote the record/ });
  t.same(qemu.said, []);
});

t.test("an agent that leaves stops trying, and frees the monitor", async (t) => {
  const { returned, qemu, clock, leave } = await returning(t, "finish-migrate");
  const end = returned();
  await until(() => qemu.clients > 0, "the connection to the monitor");
  leave();
  await t.rejects(passing(clock, end), { code: "stopping" });
  await until(() => qemu.clients === 0, "the end of the connection");
});
