/** Tests the questions that a source asks by calls while its link is cut. */
import t, { type Test } from "tap";
import { askWhileCut } from "../../../agent-source/migration/poll-cut-destination.ts";
import type { MigrationFault } from "../../../shared/fault.ts";
import type { Standing } from "../../../shared/protocol/destination-states.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { passing, until } from "../../support/migrating.ts";
import { sourcePhase } from "../../support/source-cx.ts";
import { StreamDestination } from "../../support/stream-destination.ts";

/** Cuts the link of a migration, and begins to ask. */
async function cut(t: Test, ...answers: readonly Standing[]) {
  const clock = new FakeClock();
  const phase = await sourcePhase(t, "running", { clock });
  phase.destination.answersInTurn(answers);
  const there = new StreamDestination(phase.cx);
  there.dial();
  there.cut();
  await until(() => there.link.isCut, "the cut");
  const over = new AbortController();
  const gone: MigrationFault[] = [];
  askWhileCut(phase.cx, there.link)(over.signal, (fault) => void gone.push(fault));
  /** Lets time pass until so many questions were asked. */
  const questions = (count: number): Promise<void> => passing(clock, phase.destination.untilAsked(count));
  return { ...phase, clock, there, over, gone, questions };
}

for (const standing of ["refused", "unknown", "lost"] as const)
  t.test(`a destination that says ${standing} will not dial again, which ends the migration`, async (t) => {
    const { gone, questions, destination } = await cut(t, standing);
    await questions(1);
    await until(() => gone.length > 0, "the fault");
    t.match(gone, [
      {
        code: "peer-failed",
        message: "The destination has given the migration up: so it is",
        role: "destination",
        advice: /if it was restarted, migrate again/,
      },
    ]);
    t.same(destination.asked, ["standing"]);
  });

t.test("a destination that runs the guest needs no stream, and the fault does not say that it gave up", async (t) => {
  const { gone, questions } = await cut(t, "running");
  await questions(1);
  await until(() => gone.length > 0, "the fault");
  t.match(gone, [{ code: "peer-failed", message: "The destination has the whole guest: so it is" }]);
});

t.test("a destination that will dial again is asked once a second, and the migration goes on", async (t) => {
  const { gone, questions, clock } = await cut(t, "waiting", "starting", "pulling");
  await questions(4);
  t.ok(clock.monotonicMs() >= 4000, `${clock.monotonicMs()} ms have passed`);
  t.same(gone, []);
});

t.test("a destination that cannot be asked proves nothing, and is asked again", async (t) => {
  const { gone, destination, questions } = await cut(t);
  destination.answer = () => {
    if (destination.calls.length > 2) return "refused";
    throw new TypeError("it is about to start again");
  };
  await questions(3);
  await until(() => gone.length > 0, "the fault of the third answer");
  t.equal(gone.length, 1);
});

t.test("nothing is asked once there is a connection again, or the session is over", async (t) => {
  const back = await cut(t, "refused");
  back.there.dial();
  const ended = await cut(t, "refused");
  ended.over.abort();
  const left = await cut(t, "refused");
  left.leave();
  for (const { clock, destination, gone } of [back, ended, left]) {
    await clock.advance(5000);
    t.same([...destination.asked, ...gone], []);
  }
});
