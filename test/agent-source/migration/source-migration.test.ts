/**
 * Tests whole migrations at their source, from the operator's call to the end: what the journal, QEMU and the
 * destination are told, and in which order. QEMU is simulated, and so is the destination.
 */
import t, { type Test } from "tap";
import { runSourceMigration } from "../../../agent-source/migration/source-migration.ts";
import type { MigrationStatus } from "../../../shared/protocol/report.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { alike } from "../../support/handshake-fixtures.ts";
import { PLAIN, SMALL, until } from "../../support/migrating.ts";
import { type PhaseOptions, sourcePhase } from "../../support/source-cx.ts";
import { StreamDestination } from "../../support/stream-destination.ts";
import { type Streaming, StreamingQemu } from "../../support/streaming-qemu.ts";

interface Whole extends PhaseOptions {
  readonly status?: string;
  readonly stream?: Streaming;
}

const RUNNING = {
  kind: "running",
  epoch: 1,
  resumedAtUs: 5,
  grantedAtUs: 4,
  agentCpuSeconds: 1,
  agentPeakMemoryBytes: 2,
};
const COMPLETE = {
  ...{ completedAtUs: 9, agentCpuSeconds: 2, agentPeakMemoryBytes: 3 },
  service: { requests: 0, medianMs: 0, p99Ms: 0, maxMs: 0 },
} as const;

/** Makes a migration whose destination takes the guest, loads it and starts it. */
async function whole(t: Test, options: Whole = {}) {
  const { status = "running", stream: how } = options;
  const phase = await sourcePhase(t, status, {
    ...options,
    flags: SMALL,
    asked: { ...PLAIN, strategy: "stop-and-copy", onDeadline: "cancel", ...options.asked },
  });
  const { happened, destination } = phase;
  const there = new StreamDestination(phase.cx);
  const stream = new StreamingQemu(t, phase.qemu, how);
  stream.onHeard = (what) => void happened.push(`qemu hears: ${what}`);
  const on: Record<string, () => void> = {
    endOfStream: () => there.sayLoaded(),
    grant: () => there.say({ ...RUNNING, kind: "running" }),
  };
  there.onHeard = ({ kind }) => {
    happened.push(`link: ${kind}`);
    on[kind]?.();
  };
  destination.agree = (offer) => {
    there.dial();
    return alike()(offer);
  };
  const cx = { ...phase.cx, dialledIn: async () => there.link };
  const statuses: MigrationStatus[] = [];
  const run = () => runSourceMigration(cx, () => void statuses.push(cx.report.status));
  /** What happened of these, in order. */
  const order = (...events: readonly string[]): readonly string[] => happened.filter((one) => events.includes(one));
  return { ...phase, cx, there, stream, on, statuses, run, order };
}

t.test("a guest is moved: the journal is ahead of each word to QEMU and to the destination", async (t) => {
  const { run, order, statuses, cx, qemu, record, happened } = await whole(t);
  t.equal(await run(), "released");
  const steps = [
    ...["journal: plan", "qemu: migrate", "qemu hears: ack", "link: endOfStream", "qemu hears: shut 0"],
    ...["journal: granted", "link: grant", "journal: released", "qemu: quit"],
  ];
  t.same(order(...steps), steps);
  t.same(order("journal: plan retiring", "qemu hears: shut 0"), ["journal: plan retiring", "qemu hears: shut 0"]);
  t.notOk(
    happened.some((one) => one.startsWith("call: ")),
    "nobody was in doubt",
  );
  t.same([...new Set(statuses)], ["preparing", "copying", "switching", "granting", "moved"]);
  t.match(await record(), { kind: "released", guest: "web" });
  t.match(cx.report.view(), { status: "moved", result: { completed: true, switchReason: "strategy stop-and-copy" } });
  t.equal(cx.report.view().error, undefined);
  t.notOk(qemu.isAlive);
});

t.test("a paused guest is moved as it is: QEMU completes by itself, and the grant says paused", async (t) => {
  const { run, there, stream, qemu, cx, happened } = await whole(t, { status: "paused" });
  const end = run();
  await until(() => there.kinds.includes("layout"), "the first pages");
  stream.sendDevices("paused");
  t.equal(await end, "released");
  t.match(await there.until("grant"), { paused: true });
  t.notOk(qemu.said.includes("cont"));
  t.notOk(happened.includes("qemu hears: ack"));
  t.match(cx.report.result, { paused: true, downtime: { totalMs: 0 } });
});

t.test("in post-copy the agent stops the guest, and keeps its QEMU until the last page is there", async (t) => {
  const { run, order, there, stream, on, statuses } = await whole(t, {
    ...{ stream: { postcopy: true }, asked: { strategy: "postcopy" } },
  });
  there.onPackage = () => there.sayLoaded();
  on.endOfStream = () => there.say({ ...COMPLETE, kind: "complete" });
  on.grant = () => {
    there.say({ ...RUNNING, kind: "running" });
    stream.sendLastPages();
  };
  t.equal(await run(), "released");
  const steps = [
    ...[
      "journal: plan",
      "qemu: migrate",
      "journal: plan retiring postcopy",
      "qemu: migrate-start-postcopy",
      "qemu: stop",
    ],
    ...["qemu hears: ack", "journal: granted postcopy", "link: grant", "link: endOfStream", "qemu hears: shut 0"],
    ...["journal: released postcopy", "qemu: quit"],
  ];
  t.same(order(...steps), steps);
  t.ok(statuses.includes("serving"));
});

t.test(
  "a grant that the destination refuses brings the guest back: journal, cont, and then the destination's copy ends",
  async (t) => {
    const { run, order, there, on, destination, cx, qemu, record } = await whole(t);
    destination.answersInTurn(["refused"]);
    on.grant = () =>
      there.say({ kind: "failure", code: "internal", message: "its disk is full", refusedToken: cx.token });
    t.equal(await run(), "kept");
    const steps = [
      "journal: granted",
      "link: grant",
      "qemu: cont",
      "journal: kept untold",
      "call: kept",
      "journal: kept",
    ];
    t.same(order(...steps), steps);
    t.equal(qemu.state.status, "running");
    t.match(cx.report.view(), {
      status: "failed",
      error: { code: "peer-failed", message: /its disk is full/, guestNow: "the guest runs at the source" },
    });
    t.notOk((await record())?.untold);
  },
);

t.test("a cancel while pages flow leaves the guest running, with its QEMU's settings as they were found", async (t) => {
  const { run, there, cancel, qemu, cx, order } = await whole(t, { asked: { strategy: "precopy" } });
  const end = run();
  await until(() => there.kinds.includes("layout"), "the first pages");
  cancel();
  t.equal(await end, "kept");
  t.same(order("qemu: migrate", "qemu: migrate_cancel", "journal: kept"), [
    ...["qemu: migrate", "qemu: migrate_cancel", "journal: kept"],
  ]);
  t.same(qemu.said.slice(-2), ["migrate-set-capabilities", "migrate-set-parameters"]);
  t.match(there.heard.at(-1), { kind: "failure", code: "cancelled" });
  t.match(cx.report.view(), { status: "cancelled", error: { guestNow: "the guest runs at the source" } });
});

t.test("a guest that neither side will carry is left alone, and its QEMU is told nothing", async (t) => {
  const { run, qemu, cx, happened, destination } = await whole(t, { status: "io-error" });
  destination.agree = () => ({ kind: "refusals", refusals: [] });
  t.equal(await run(), "kept");
  t.same([...qemu.said, ...happened.filter((one) => one !== "journal: kept")], []);
  t.match(cx.report.view(), {
    status: "failed",
    error: { code: "refused", guestNow: "the guest is at the source as it was: io-error" },
  });
});

t.test(
  "a QEMU that ends in the switchover orphans the guest: the destination is asked, and told nothing",
  async (t) => {
    const { run, order, there, on, qemu, destination, cx } = await whole(t);
    destination.answersInTurn(["refused"]);
    on.endOfStream = () => {
      const fails = {
        kind: "failure",
        code: "internal",
        message: "it is full",
        refusedToken: new Uint8Array(),
      } as const;
      void qemu.end().then(() => there.say(fails));
    };
    t.equal(await run(), "kept");
    t.same(order("link: failure", "link: grant", "call: withdraw", "call: kept", "call: standing"), ["call: standing"]);
    t.match(cx.report.view(), {
      status: "failed",
      error: { guestNow: /^the guest is gone: its QEMU at the source has ended/ },
    });
  },
);

t.test("an agent that leaves while pages flow leaves the journal and QEMU to the next agent", async (t) => {
  // by the host's clock, the timers of the session that is left would keep this program alive
  const { run, there, leave, qemu, record, cx } = await whole(t, {
    ...{ asked: { strategy: "precopy" }, clock: new FakeClock() },
  });
  const end = run();
  await until(() => there.kinds.includes("layout"), "the first pages");
  const said = [...qemu.said];
  leave();
  there.say({ kind: "failure", code: "internal", message: "the link is over", refusedToken: new Uint8Array() });
  t.equal(await end, "left");
  t.same(qemu.said, said);
  t.match(await record(), { kind: "plan" });
  t.equal(cx.report.status, "copying");
});
