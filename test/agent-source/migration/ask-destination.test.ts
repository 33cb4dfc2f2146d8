/** Tests what a source in doubt says to its destination, and when it stops asking. */
import t, { type Test } from "tap";
import type { Sight } from "../../../agent-source/guest/own-qemu.ts";
import { type Asking, askUntilSettled, tellUntilHeard } from "../../../agent-source/migration/ask-destination.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { eventually } from "../../support/bounded.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { passing } from "../../support/migrating.ts";
import { type Phase, sourcePhase } from "../../support/source-cx.ts";

const RETIRED: Sight = { own: "retired", status: "postmigrate", anotherRuns: false };
const RUNNING: Sight = { own: "active", status: "running", anotherRuns: false };
const WITHIN = { timeoutMs: 10_000 };

async function asking(t: Test) {
  const clock = new FakeClock();
  const phase = await sourcePhase(t, "postmigrate", { clock });
  const over = new AbortController();
  t.teardown(() => over.abort(new MigrationFault("stopping", "the test is over")));
  const news: string[] = [];
  const seen = { sight: RETIRED, active: 0 };
  const by: Asking = {
    paused: false,
    look: async () => seen.sight,
    isPostcopy: false,
    onWithdraw: async (isActive) => {
      if (isActive) seen.active++;
    },
    onNews: (one) => void news.push(one),
  };
  const until = (paused = false) => passing(clock, askUntilSettled(phase.cx, { ...by, paused }, over.signal));
  return { ...phase, clock, news, seen, over, by, until };
}

t.test("the grant is repeated until the guest runs there, while the QEMU here is retired or gone", async (t) => {
  const { destination, news, until, cx, seen } = await asking(t);
  seen.sight = { own: "gone", status: "", anotherRuns: false };
  const running = { epoch: 1, resumedAtUs: 5, grantedAtUs: 4, agentCpuSeconds: 1, agentPeakMemoryBytes: 2 };
  destination.answersInTurn(["waiting", { standing: "running", reason: "", running }]);
  t.match(await until(true), { kind: "running", running: { resumedAtUs: 5 } });
  t.match(destination.calls, [
    { ask: "grant", paused: true, migrationId: cx.id, epoch: 1 },
    { ask: "grant", paused: true },
  ]);
  t.same(Buffer.from(destination.calls[0]?.token ?? []), Buffer.from(cx.token));
  t.match(news, [/has the guest and is about to start it/]);
});

t.test("a post-copy whose source QEMU has ended is withdrawn, since its missing pages are lost", async (t) => {
  const { destination, news, cx, by, over, seen, clock } = await asking(t);
  const look = async (): Promise<Sight> => ({ own: "gone", status: "", anotherRuns: false });
  destination.answersInTurn(["waiting", "refused"]);
  const settled = await passing(clock, askUntilSettled(cx, { ...by, isPostcopy: true, look }, over.signal));
  t.match(settled, { kind: "refused" });
  t.same(destination.asked, ["withdraw", "withdraw"]);
  t.match(news, [/the grant was withdrawn, and the destination is giving the guest up/]);
  t.equal(seen.active, 0, "the guest was not started at the source");
});

t.test("a refusal ends the questions, with the destination's reason", async (t) => {
  const { destination, until } = await asking(t);
  destination.answersInTurn([{ standing: "refused", reason: "its disk is full" }]);
  t.same(await until(), { kind: "refused", message: "its disk is full" });
});

t.test("a grant is withdrawn, and its delivery stopped, while any QEMU at the source runs the guest", async (t) => {
  for (const sight of [RUNNING, { own: "gone", status: "", anotherRuns: true } as const]) {
    const { destination, seen, until } = await asking(t);
    seen.sight = sight;
    destination.answersInTurn(["waiting", "refused"]);
    t.match(await until(), { kind: "refused" });
    t.same(destination.asked, ["withdraw", "withdraw"]);
    t.equal(seen.active, 2);
  }
});

t.test("a guest that runs at both hosts is doubled; a paused source QEMU makes no second copy", async (t) => {
  const both = await asking(t);
  both.seen.sight = RUNNING;
  both.destination.answersInTurn(["running"]);
  t.same(await both.until(), { kind: "doubled" });
  const paused = await asking(t);
  paused.seen.sight = { own: "active", status: "paused", anotherRuns: false };
  paused.destination.answersInTurn(["pulling"]);
  t.same(await paused.until(), { kind: "running" });
  t.same(paused.destination.asked, ["withdraw"]);
});

t.test("while the source cannot be looked at, the destination is only asked how it stands, not granted", async (t) => {
  const { destination, seen, news, until } = await asking(t);
  seen.sight = { own: "unknown", status: "", anotherRuns: false };
  destination.answersInTurn(["waiting", "starting", "running"]);
  t.same(await until(), { kind: "running" });
  t.same(destination.asked, ["standing", "standing", "standing"]);
  t.match(news, [/cannot be looked at or has run since, so the grant is not repeated/, /cannot be looked at/]);
});

t.test("the source is looked at before each question, so a guest that is started there stops the grant", async (t) => {
  const { destination, seen, until } = await asking(t);
  destination.answer = ({ ask }) => {
    seen.sight = RUNNING;
    return ask === "grant" ? "waiting" : "refused";
  };
  t.match(await until(), { kind: "refused" });
  t.same(destination.asked, ["grant", "withdraw"]);
});

t.test("a lack of proof is passed on as news, and only the signal ends the questions", async (t) => {
  const { destination, news, over, until } = await asking(t);
  destination.answersInTurn(["lost", "unknown"]);
  const settled = until();
  settled.catch(() => undefined);
  await eventually(() => (news.length > 1 ? true : undefined), { ...WITHIN, what: "both pieces of news" });
  await destination.close();
  const silent = (): true | undefined => (/cannot be asked/.test(news.at(-1) ?? "") ? true : undefined);
  await eventually(silent, { ...WITHIN, what: "the news of a silent destination" });
  t.match(news, [/its QEMU is not there any more/, /knows of no such migration/]);
  over.abort(new MigrationFault("stopping", "enough"));
  await t.rejects(settled, { code: "stopping" });
});

t.test("a withdrawal is said until it is heard", async (t) => {
  const cases: readonly (readonly [
    say: "withdraw" | "kept",
    answers: Parameters<Phase["destination"]["answersInTurn"]>[0],
    told: string,
  ])[] = [
    ["withdraw", ["waiting", "starting", "refused"], "ended"],
    ["withdraw", ["unknown"], "ended"],
    // `lost` ends no withdrawal: the destination writes it down only for a source whose journal says `kept`
    ["withdraw", ["lost", "refused"], "ended"],
    ["kept", ["lost"], "ended"],
    ["kept", ["waiting", "running"], "running"],
    ["withdraw", ["pulling"], "running"],
  ];
  for (const [say, answers, told] of cases) {
    const clock = new FakeClock();
    const { cx, destination } = await sourcePhase(t, "running", { clock });
    destination.answersInTurn(answers);
    t.equal(await passing(clock, tellUntilHeard(cx, say, cx.leaving)), told, answers.join());
    t.equal(destination.calls.length, answers.length);
    for (const call of destination.calls) t.match(call, { ask: say });
  }
});

t.test("telling ends with the signal, also while the destination does not answer", async (t) => {
  const { cx, destination } = await sourcePhase(t, "running");
  await destination.close();
  const over = new AbortController();
  const told = tellUntilHeard(cx, "kept", over.signal);
  over.abort(new MigrationFault("stopping", "enough"));
  await t.rejects(told, { code: "stopping" });
});
