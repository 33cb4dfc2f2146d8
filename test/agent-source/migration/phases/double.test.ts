/** Tests the state *doubled*: it is reported for as long as it lasts, and neither agent ends a copy. */
import t, { type Test } from "tap";
import { double } from "../../../../agent-source/migration/phases/double.ts";
import type { Granted } from "../../../../agent-source/migration/source-state.ts";
import { twoCopies } from "../../../../agent-source/migration/two-copies.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { FAKE_SETTINGS } from "../../../support/fake-guest-facts.ts";
import { FakeQemu } from "../../../support/fake-qemu.ts";
import { RESUMED_POSTCOPY } from "../../../support/fake-resumed.ts";
import { loadedOf, migrating, passing, until } from "../../../support/migrating.ts";
import { sourcePhase } from "../../../support/source-cx.ts";

/** Is doubled from the first question to the destination on. */
async function doubled(t: Test, status = "running", state: Partial<Granted> = {}) {
  const clock = new FakeClock();
  const phase = await sourcePhase(t, status, { clock });
  const { cx, destination } = phase;
  destination.answersInTurn(["running"]);
  const end = double({ kind: "doubled", paused: false, fault: twoCopies(cx), ...state }, cx);
  end.catch(() => undefined);
  await destination.untilAsked(1);
  /** Lets time pass until the state ends. */
  const ends = () => passing(clock, end);
  /** Lets time pass until so many more questions were asked. */
  const questions = (count: number) => passing(clock, destination.untilAsked(destination.calls.length + count));
  return { ...phase, clock, end, ends, questions };
}

t.test("the two copies are reported and written down, and neither is ended", async (t) => {
  const { cx, destination, qemu, record, questions } = await doubled(t);
  t.match(cx.report.view().error, { code: "two-copies", guestNow: /both hosts/, advice: /Pause one of the two/ });
  t.match(await record(), { kind: "granted" });
  await questions(1);
  t.same([...new Set(destination.asked)], ["standing"]);
  t.same(qemu.said, []);
  t.equal(cx.words.asker, "doubled");
});

t.test("the record keeps what the session knows of settings and pages, for the next life of the agent", async (t) => {
  const { cx, session, destination, record } = await migrating(t);
  destination.answersInTurn(["running"]);
  session.stoppedWith = RESUMED_POSTCOPY;
  const loaded = loadedOf(session);
  const end = double({ kind: "doubled", paused: false, loaded, fault: twoCopies(cx) }, cx);
  end.catch(() => undefined);
  await destination.untilAsked(1);
  const { ramSectionId, frameBytes } = RESUMED_POSTCOPY;
  t.match(await record(), { kind: "granted", settings: FAKE_SETTINGS, postcopy: { ramSectionId, frameBytes } });
  cx.words.say("destination");
  t.match(await end, { kind: "releasing", loaded });
});

t.test("when the copy at the source ends, the guest is left at the destination", async (t) => {
  const { qemu, ends } = await doubled(t);
  await qemu.end();
  t.match(await ends(), { kind: "releasing" });
});

t.test("the end of the source QEMU does not count while another QEMU runs the guest at the source", async (t) => {
  const { qemu, questions, ends } = await doubled(t);
  await qemu.end();
  const other = await FakeQemu.start(t, { status: "running" }, qemu.path);
  await questions(2);
  await other.end();
  t.match(await ends(), { kind: "releasing" });
  t.same(other.said, []);
});

t.test("when the copy at the destination ends, the guest stays here, and this agent does not start it", async (t) => {
  const { destination, ends, cx, qemu, record } = await doubled(t);
  destination.answersInTurn(["lost"]);
  t.match(await ends(), {
    kind: "withdrawing",
    fault: {
      code: "two-copies",
      message: /where its copy has ended/,
      advice: /disks/,
      guestNow: "the guest runs at the source",
    },
  });
  t.match(await record(), { kind: "kept", untold: true });
  t.same(qemu.said, []);
  t.equal(cx.report.view().error, undefined);
});

t.test("the copy at a destination that cannot be asked does not count as ended", async (t) => {
  const { destination, end, qemu, clock } = await doubled(t);
  await destination.close();
  let looks = 0;
  qemu.whim = ({ execute }) => {
    if (execute === "query-status") looks++;
    return undefined;
  };
  let isOver = false;
  const over = (): void => {
    isOver = true;
  };
  end.then(over, over);
  await passing(
    clock,
    until(() => looks > 2, "further looks"),
  );
  t.notOk(isOver);
  t.same(qemu.said, []);
});

t.test("the operator's word ends the state", async (t) => {
  const there = await doubled(t);
  there.cx.words.say("destination");
  t.match(await there.end, { kind: "releasing", overruled: true });
  const here = await doubled(t);
  here.cx.words.say("source");
  t.match(await here.end, { kind: "withdrawing", fault: { guestNow: "the guest runs at the source" } });
});

t.test("a disk that takes no record changes nothing about the next state", async (t) => {
  const phase = await sourcePhase(t, "running");
  phase.failWrites(true);
  phase.destination.answersInTurn(["lost"]);
  const next = await double({ kind: "doubled", paused: false, fault: twoCopies(phase.cx) }, phase.cx);
  t.match(next, { kind: "withdrawing" });
});

t.test("when both copies have ended the guest is in doubt again, and no older copy is started", async (t) => {
  const { destination, ends, qemu } = await doubled(t);
  destination.answersInTurn(["waiting"]);
  await qemu.end();
  destination.answersInTurn(["lost"]);
  t.match(await ends(), { kind: "inDoubt", fault: { code: "in-doubt", message: /does not run here any more/ } });
  t.same(qemu.said, []);
});

t.test("a copy that runs on here keeps its QEMU with the settings that were found, and gets no cont", async (t) => {
  const { destination, ends, qemu, happened } = await doubled(t, "running", { settings: FAKE_SETTINGS });
  destination.answersInTurn(["refused"]);
  t.match(await ends(), { kind: "withdrawing", fault: { guestNow: "the guest runs at the source" } });
  t.same(qemu.said, ["migrate-set-capabilities", "migrate-set-parameters"]);
  t.equal(happened.at(-1), "journal: kept untold");
});

t.test(
  "a copy here that its operator has paused has not ended, and is left paused, also after post-copy",
  async (t) => {
    for (const state of [{}, { postcopy: RESUMED_POSTCOPY }]) {
      const { destination, questions, ends, qemu } = await doubled(t, "running", state);
      qemu.become("paused");
      await questions(2);
      destination.answersInTurn(["lost"]);
      t.match(await ends(), {
        kind: "withdrawing",
        fault: { guestNow: "the guest is at the source, and its QEMU says that it is paused" },
      });
      t.same(qemu.said, []);
    }
  },
);

t.test("the fault names another QEMU of the guest that lives on here", async (t) => {
  const { destination, ends, qemu } = await doubled(t);
  await qemu.end();
  await FakeQemu.start(t, { status: "running" }, qemu.path);
  destination.answersInTurn(["lost"]);
  t.match(await ends(), {
    kind: "withdrawing",
    fault: { guestNow: /in a QEMU that was started beside this migration/ },
  });
});

t.test("a copy there that misses pages goes back to the doubt once the copy here has ended", async (t) => {
  const { destination, ends, qemu } = await doubled(t, "running", { postcopy: RESUMED_POSTCOPY });
  destination.answersInTurn(["pulling"]);
  await qemu.end();
  t.match(await ends(), { kind: "inDoubt", postcopy: RESUMED_POSTCOPY, fault: { code: "in-doubt" } });
});

t.test("a copy here that cannot be looked at does not count as ended", async (t) => {
  const { destination, questions, qemu, end } = await doubled(t);
  qemu.whim = ({ execute }) => (execute === "query-status" ? "it is busy" : undefined);
  destination.answersInTurn(["lost"]);
  await questions(2);
  t.equal(await Promise.race([end, "it lasts"]), "it lasts");
});
