/** Tests the state *granting*: when the grant is sent, and what counts as the proof of what became of it. */
import t, { type Test } from "tap";
import { grant } from "../../../../agent-source/migration/phases/grant.ts";
import { systemClock } from "../../../../shared/runtime/clock.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { loadedOf, type MigratingOptions, migrating, passing, until } from "../../../support/migrating.ts";

const TIMES = { resumedAtUs: 5, grantedAtUs: 4, agentCpuSeconds: 1, agentPeakMemoryBytes: 2 };
const RUNNING = { kind: "running", epoch: 1, ...TIMES } as const;

/** Grants a guest whose QEMU is retired, by a clock that stands still until a test moves it. */
async function granting(t: Test, options: MigratingOptions = {}) {
  const clock = new FakeClock();
  const phase = await migrating(t, { status: "postmigrate", clock, ...options });
  const loaded = loadedOf(phase.session);
  const refuse = (message: string, refusedToken: Uint8Array = phase.cx.token): void =>
    phase.there.say({ kind: "failure", code: "internal", message, refusedToken });
  const granted = () => {
    const end = grant({ kind: "granting", loaded }, phase.cx);
    end.catch(() => undefined);
    return end;
  };
  return { ...phase, clock, loaded, refuse, granted };
}

t.test("the grant carries the token and the run state, and the guest's start there is the proof", async (t) => {
  for (const paused of [false, true]) {
    const { granted, there, loaded, cx, happened } = await granting(t, { paused });
    const end = granted();
    const said = await there.until("grant");
    t.match(said, { epoch: 1, paused });
    t.same(Buffer.from(said.token), Buffer.from(cx.token));
    there.say(RUNNING);
    t.match(await end, { kind: "releasing", loaded, paused, running: TIMES });
    t.same(happened, ["link: grant"], "nothing is asked by calls while the stream answers");
  }
});

t.test("a refusal with the grant's token gives the guest back, with the destination's words", async (t) => {
  const { granted, there, refuse, cx } = await granting(t);
  const end = granted();
  await there.until("grant");
  refuse("its disk is full");
  t.match(await end, {
    kind: "keeping",
    fault: {
      code: "peer-failed",
      message: `The destination ${cx.call.to} refused the guest: its disk is full`,
      role: "destination",
    },
    undo: { granted: "givenBack", isRetired: true, mayBeWhole: true, accepted: true },
  });
});

t.test("a failure without the grant's token is no proof: the destination is asked by calls", async (t) => {
  const { granted, there, refuse, destination, clock } = await granting(t);
  destination.answersInTurn(["running"]);
  const end = granted();
  await there.until("grant");
  refuse("something else", Buffer.from("another token"));
  there.end();
  await until(() => there.link.isOver, "the end of the stream");
  t.match(await end, { kind: "releasing" });
  t.same(destination.asked, ["grant"]);
  t.equal(clock.monotonicMs(), 0, "the end of the stream is not waited behind");
});

t.test("after 2 s without an answer over the stream the grant is repeated by a call, with its run state", async (t) => {
  const { granted, there, destination, clock } = await granting(t, { paused: true });
  destination.answersInTurn(["waiting", { standing: "running", reason: "", running: { epoch: 1, ...TIMES } }]);
  const end = granted();
  await there.until("grant");
  await clock.advance(1900);
  t.same(destination.calls, []);
  await clock.advance(200);
  await destination.untilAsked(1);
  t.match(await passing(clock, end), { kind: "releasing", running: TIMES });
  t.match(destination.calls, [
    { ask: "grant", paused: true },
    { ask: "grant", paused: true },
  ]);
});

t.test(
  "a grant without any answer within link.doubtAfter leaves the guest in doubt, and says what is known",
  async (t) => {
    const { granted, there, destination, clock, cx, loaded } = await granting(t);
    await destination.close();
    const end = granted();
    await there.until("grant");
    const passing = setInterval(() => void clock.advance(1000), 5);
    t.match(await end.finally(() => clearInterval(passing)), {
      kind: "inDoubt",
      loaded,
      fault: {
        code: "in-doubt",
        message: /^The guest was granted to .*: the destination cannot be asked: /,
        guestNow: /paused at the source and may run at the destination/,
        advice: /ferry resolve 0123456789ab --keep source\|destination/,
      },
    });
    t.ok(clock.monotonicMs() >= cx.config.link.doubtAfterMs);
    t.notOk(cx.doubt.isWithdrawn);
  },
);

t.test("the stream is not given up, however long the link is down after the grant", async (t) => {
  const { granted, there, destination, clock, session } = await granting(t);
  there.link.setPatience(1000);
  const end = granted();
  await there.until("grant");
  there.cut();
  await until(() => session.channel.isCut, "the cut");
  destination.answer = () => new Promise(() => undefined);
  await clock.advance(1500);
  there.dial();
  there.say(RUNNING);
  t.match(await end, { kind: "releasing" });
});

t.test("an agent that leaves after the grant leaves the guest in doubt, and the next agent asks", async (t) => {
  const { granted, there, leave, happened } = await granting(t);
  const end = granted();
  await there.until("grant");
  leave();
  t.match(await end, { kind: "inDoubt", fault: { code: "in-doubt" } });
  t.same(happened, ["link: grant"]);
});

t.test("the grant is never sent to a copy that is older than what ran at the source", async (t) => {
  const { granted, record, destination, there, cx, qemu, session } = await granting(t);
  qemu.become("running");
  await until(() => !session.runs.standsStill, "the guest to run here");
  t.match(await granted(), { kind: "inDoubt", fault: { message: /has started it at the source before the grant/ } });
  t.match(await record(), { kind: "granted", withdrawn: true });
  t.ok(cx.doubt.isWithdrawn, "the grant is not repeated if the source QEMU ends before the next look");
  t.same([...destination.asked, ...there.kinds], []);
});

t.test(
  "a guest that somebody starts here after the grant is withdrawn: the journal first, then the calls",
  async (t) => {
    const { granted, there, destination, qemu, happened, cx } = await granting(t);
    destination.answersInTurn(["refused"]);
    const end = granted();
    await there.until("grant");
    qemu.become("running");
    t.match(await end, { kind: "keeping", fault: { message: /refused the guest/ } });
    t.same(happened, ["link: grant", "journal: granted withdrawn", "call: withdraw"]);
    t.ok(there.link.isOver, "the open stream would still deliver the grant");
    t.ok(cx.doubt.isWithdrawn);
  },
);

t.test("a guest that runs at both hosts after the grant is in doubt, with the words for two copies", async (t) => {
  const { granted, there, destination, qemu } = await granting(t);
  destination.answersInTurn(["running"]);
  const end = granted();
  await there.until("grant");
  qemu.become("running");
  t.match(await end, { kind: "inDoubt", fault: { code: "in-doubt", cause: { code: "two-copies" } } });
});

t.test("in post-copy the guest that runs there goes on to be served with the pages that are here", async (t) => {
  const { granted, there, session } = await granting(t, {
    ...{ status: "running", stream: { postcopy: true }, clock: systemClock },
  });
  await session.letPostcopy(async () => undefined);
  await session.packaged.promise;
  const end = granted();
  await there.until("grant");
  there.say(RUNNING);
  t.match(await end, { kind: "serving", running: TIMES });
});
