/** Tests the state *inDoubt*: what the agent says while nobody knows where the guest runs, and what ends the doubt. */
import t, { type Test } from "tap";
import { doubt } from "../../../../agent-source/migration/phases/doubt.ts";
import { doubtful } from "../../../../agent-source/migration/phases/grant.ts";
import type { State } from "../../../../agent-source/migration/source-state.ts";
import { systemClock } from "../../../../shared/runtime/clock.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { FakeQemu } from "../../../support/fake-qemu.ts";
import { RESUMED_POSTCOPY } from "../../../support/fake-resumed.ts";
import { loadedOf, type MigratingOptions, migrating, passing, until } from "../../../support/migrating.ts";
import { sourcePhase } from "../../../support/source-cx.ts";

type InDoubt = Partial<Omit<State<"inDoubt">, "kind" | "fault">>;
const RUNNING = { epoch: 1, resumedAtUs: 5, grantedAtUs: 4, agentCpuSeconds: 1, agentPeakMemoryBytes: 2 };

/** Is in doubt as an agent that has started again, and so has no session. */
async function doubting(t: Test, status: string, state: InDoubt = {}) {
  const clock = new FakeClock();
  const phase = await sourcePhase(t, status, { clock });
  const { cx } = phase;
  phase.destination.answersInTurn(["waiting"]);
  const end = doubt({ kind: "inDoubt", paused: false, fault: doubtful(cx, "no answer"), ...state }, cx);
  end.catch(() => undefined);
  return { ...phase, clock, end };
}

/** Is in doubt with the session of the migration, whose stream is open. */
async function withSession(t: Test, options: MigratingOptions) {
  const phase = await migrating(t, options);
  const { cx, session } = phase;
  phase.destination.answersInTurn(["waiting"]);
  if (options.stream?.postcopy === true) {
    await session.letPostcopy(async () => undefined);
    await session.packaged.promise;
  }
  session.commit();
  session.inbox.grantSent(cx.token);
  const loaded = loadedOf(session);
  const begin = () => {
    const end = doubt({ kind: "inDoubt", paused: false, loaded, fault: doubtful(cx, "no answer") }, cx);
    end.catch(() => undefined);
    return end;
  };
  return { ...phase, loaded, begin };
}

t.test(
  "the operator is told what is not known, that nothing starts the guest here, and how to end the doubt",
  async (t) => {
    const { cx, end } = await doubting(t, "postmigrate");
    t.match(cx.report.view().error, {
      code: "in-doubt",
      message: /^The guest was granted to .*: no answer$/,
      guestNow: /paused at the source and may run at the destination; nothing starts it here/,
      advice: /ferry resolve 0123456789ab --keep source\|destination/,
    });
    t.equal(cx.words.asker, "inDoubt");
    cx.words.say("destination");
    await end;
    t.equal(cx.report.view().error, undefined, "an error that is over is not shown");
  },
);

t.test("the destination's news replace what the operator sees, and QEMU is told nothing meanwhile", async (t) => {
  const { cx, end, destination, qemu, clock } = await doubting(t, "postmigrate");
  const shows = (what: RegExp) => until(() => what.test(cx.report.view().error?.message ?? ""), String(what));
  await shows(/has the guest and is about to start it/);
  destination.answersInTurn(["lost"]);
  await clock.advance(3000);
  await shows(/its QEMU is not there any more/);
  t.same(qemu.said, []);
  destination.answersInTurn(["running"]);
  t.match(await passing(clock, end), { kind: "releasing" });
});

t.test("a destination that runs the guest ends the doubt, with when the guest was resumed", async (t) => {
  const { destination, end, clock, happened } = await doubting(t, "postmigrate");
  destination.answersInTurn(["starting", { standing: "running", reason: "", running: RUNNING }]);
  t.match(await passing(clock, end), { kind: "releasing", running: RUNNING });
  t.same([...new Set(happened)], ["call: grant"]);
});

t.test(
  "a refusal gives the guest back with the destination's words, and the journal still says `granted`",
  async (t) => {
    const { destination, end, clock } = await doubting(t, "postmigrate", { paused: true });
    destination.answersInTurn([{ standing: "refused", reason: "its disk is full" }]);
    t.match(await passing(clock, end), {
      kind: "keeping",
      fault: { code: "peer-failed", message: /refused the guest: its disk is full/ },
      undo: { granted: "givenBack", isRetired: true, mayBeWhole: true, touched: true, accepted: true, paused: true },
    });
  },
);

t.test("a guest that runs at both hosts is doubled, and neither copy is ended", async (t) => {
  const { destination, end, clock, qemu, record } = await doubting(t, "running");
  destination.answersInTurn(["running"]);
  t.match(await passing(clock, end), { kind: "doubled", fault: { code: "two-copies" } });
  t.same(qemu.said, []);
  t.match(await record(), { kind: "granted", withdrawn: true });
});

t.test("the operator's word for the source gives the guest back, and says what to look for there", async (t) => {
  const { cx, end } = await doubting(t, "postmigrate");
  cx.words.say("source");
  t.match(await end, {
    kind: "keeping",
    fault: {
      code: "in-doubt",
      message: /the operator kept the guest at the source/,
      advice: /nothing of the guest is left/,
    },
    undo: { granted: "givenBack", isRetired: true },
  });
});

t.test("the operator's word for the destination ends also what is left of the guest here", async (t) => {
  const { cx, end } = await doubting(t, "postmigrate");
  cx.words.say("destination");
  t.match(await end, { kind: "releasing", overruled: true });
});

t.test("with pages missing there, the operator's word for the destination has them sent", async (t) => {
  const { cx, end } = await doubting(t, "paused", { postcopy: RESUMED_POSTCOPY });
  cx.words.say("destination");
  t.match(await end, { kind: "serving", postcopy: RESUMED_POSTCOPY });
});

t.test("a guest that has ended there with pages missing needs no pages, so the word for it releases", async (t) => {
  const { cx, end } = await doubting(t, "paused", { postcopy: RESUMED_POSTCOPY, lost: true });
  cx.words.say("destination");
  t.match(await end, { kind: "releasing", overruled: true });
});

t.test(
  "no pages can be sent from a QEMU that runs the guest, so the word for the destination makes two copies",
  async (t) => {
    const own = await doubting(t, "running", { postcopy: RESUMED_POSTCOPY });
    own.cx.words.say("destination");
    t.match(await own.end, { kind: "doubled", fault: { code: "two-copies" } });
    const beside = await doubting(t, "gone", { postcopy: RESUMED_POSTCOPY });
    await FakeQemu.start(t, { status: "running" }, beside.qemu.path);
    beside.cx.words.say("destination");
    t.match(await beside.end, { kind: "doubled" });
  },
);

t.test("a destination that still pulls pages is served again", async (t) => {
  const { destination, end, clock } = await doubting(t, "paused", { postcopy: RESUMED_POSTCOPY });
  destination.answersInTurn([{ standing: "pulling", reason: "", running: RUNNING }]);
  t.match(await passing(clock, end), { kind: "serving", postcopy: RESUMED_POSTCOPY, running: RUNNING });
});

t.test("the open stream is closed, since it would deliver the grant behind the agent's back", async (t) => {
  const { begin, there, session, destination, cx } = await withSession(t, { status: "postmigrate", paused: false });
  const end = begin();
  t.match(await session.channel.closed, { code: "peer-lost", message: /in doubt, and asks by calls/ });
  await destination.untilAsked(1);
  there.say({ kind: "running", ...RUNNING });
  cx.words.say("destination");
  t.match(await end, { kind: "releasing" });
});

t.test(
  "in post-copy the stream stays open and its pages flow, since the guest may run there and need them",
  async (t) => {
    const options = { stream: { postcopy: true }, clock: systemClock };
    const { begin, session, stream, there } = await withSession(t, options);
    const end = begin();
    stream.sendLastPages();
    await session.ended.promise;
    t.notOk(session.channel.isOver);
    there.say({ kind: "running", ...RUNNING });
    t.match(await end, { kind: "serving", running: RUNNING });
  },
);

t.test("an agent that leaves ends the questions, and the journal is left as it is", async (t) => {
  const { end, leave, written, destination } = await doubting(t, "postmigrate");
  await destination.untilAsked(1);
  leave();
  await t.rejects(end, { code: "stopping" });
  t.same(written, []);
});
