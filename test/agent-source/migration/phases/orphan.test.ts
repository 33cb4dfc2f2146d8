/**
 * Tests the state *orphaned*: the source QEMU ended before the grant, so the destination is asked, and told nothing.
 */
import t, { type Test } from "tap";
import { orphan } from "../../../../agent-source/migration/phases/orphan.ts";
import { MigrationFault } from "../../../../shared/fault.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { FakeQemu } from "../../../support/fake-qemu.ts";
import { passing, until } from "../../../support/migrating.ts";
import { sourcePhase } from "../../../support/source-cx.ts";

const FAULT = new MigrationFault("qemu-failed", "The source QEMU ended");

/** Is orphaned, by a clock that goes on as long as a test waits for the end, or for what the operator is told. */
async function orphaned(t: Test) {
  const clock = new FakeClock();
  const phase = await sourcePhase(t, "gone", { clock });
  const { cx } = phase;
  const says = async (field: "guestNow" | "message", what: RegExp): Promise<unknown> =>
    await passing(
      clock,
      until(() => what.test(cx.report.view().error?.[field] ?? ""), `${what}`),
    );
  const end = orphan({ kind: "orphaned", fault: FAULT }, cx);
  end.catch(() => undefined);
  return { ...phase, clock, says, end, ends: () => passing(clock, end) };
}

t.test("the operator is told at once what has happened, and how to go on", async (t) => {
  const { cx, ends } = await orphaned(t);
  t.match(cx.report.view().error, {
    code: "in-doubt",
    message: /is being asked whether it holds a copy/,
    guestNow: /runs nowhere/,
    advice: /resolve 0123456789ab --keep destination/,
  });
  t.equal(cx.words.asker, "orphaned");
  await ends();
});

t.test("a destination that runs the guest settles it, and one that has no copy leaves only a new start", async (t) => {
  for (const standing of ["running", "pulling"] as const) {
    const { destination, ends, cx } = await orphaned(t);
    destination.answersInTurn(["waiting", "starting", standing]);
    t.match(await ends(), { kind: "releasing" }, standing);
    t.same([...new Set(destination.asked)], ["standing"]);
    t.equal(cx.report.view().error, undefined);
  }
  for (const standing of ["refused", "unknown", "lost"] as const) {
    const { destination, ends, record } = await orphaned(t);
    destination.answersInTurn([standing]);
    const error = { code: "qemu-failed", guestNow: /is gone: .*\(so it is\)/, advice: /ferry --agent .* list/ };
    t.match(await ends(), { kind: "kept", fault: error }, standing);
    t.match(await record(), { kind: "kept" });
    t.notOk((await record())?.untold, "a copy that the destination keeps is the operator's, and is not withdrawn");
  }
});

t.test(
  "the operator is told that a supervisor has started the guest again, since the other copy would be a second one",
  async (t) => {
    const { destination, qemu, says, ends, cx } = await orphaned(t);
    destination.answersInTurn(["waiting"]);
    const other = await FakeQemu.start(t, { status: "running" }, qemu.path);
    await says("guestNow", /another QEMU of the guest/);
    t.match(cx.report.view().error?.advice, /end the copy at the destination: .*--keep source; else end that QEMU/);
    destination.answersInTurn(["refused"]);
    t.match(await ends(), { kind: "kept", fault: { guestNow: /another QEMU of the guest runs here/ } });
    t.same(other.said, []);
  },
);

t.test("the operator's word gives up the copy of the destination, which is then told", async (t) => {
  const { destination, end, cx, record } = await orphaned(t);
  destination.answersInTurn(["waiting"]);
  await destination.untilAsked(1);
  t.equal(cx.words.say("source"), true);
  t.match(await end, { kind: "withdrawing", fault: { guestNow: /the operator has given up/, advice: /anew/ } });
  t.match(await record(), { kind: "kept", untold: true });
});

t.test("the operator sees what the destination says of its copy, and when it cannot be asked", async (t) => {
  const { destination, says, end, leave } = await orphaned(t);
  destination.answersInTurn(["waiting"]);
  await says("message", /the destination holds a copy, paused/);
  destination.answersInTurn(["starting"]);
  await says("message", /is starting its copy/);
  await destination.close();
  await says("message", /cannot be asked whether it holds a copy/);
  leave();
  await t.rejects(end, { code: "stopping" });
});

t.test("the destination is only asked how it stands, so that its copy is kept for the operator", async (t) => {
  const { destination, clock, written, end, leave } = await orphaned(t);
  destination.answersInTurn(["waiting"]);
  await passing(clock, destination.untilAsked(4));
  t.same([...new Set(destination.asked)], ["standing"]);
  t.same(written, []);
  t.ok(clock.monotonicMs() >= 3000, "once a second");
  leave();
  await t.rejects(end, { code: "stopping" });
});
