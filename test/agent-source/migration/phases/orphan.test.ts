/**
 * Tests the state *orphaned*: the source QEMU ended before the grant, so the destination is asked, and told nothing.
 */
import t, { type Test } from "tap";
import { orphan } from "../../../../agent-source/migration/phases/orphan.ts";
import { MigrationFault } from "../../../../shared/fault.ts";
import { eventually } from "../../../support/bounded.ts";
import { FakeQemu } from "../../../support/fake-qemu.ts";
import { sourcePhase } from "../../../support/source-cx.ts";

const FAULT = new MigrationFault("qemu-failed", "The source QEMU ended");
const WITHIN = { timeoutMs: 10_000 };

async function orphaned(t: Test) {
  const phase = await sourcePhase(t, "gone");
  const { cx } = phase;
  const says = async (guestNow: RegExp): Promise<void> => {
    const said = (): true | undefined => (guestNow.test(cx.report.view().error?.guestNow ?? "") ? true : undefined);
    await eventually(said, { ...WITHIN, what: `${guestNow}, not ${JSON.stringify(cx.report.view().error)}` });
  };
  return { ...phase, says, end: orphan({ kind: "orphaned", fault: FAULT }, cx) };
}

t.test("the operator is told at once what has happened, and how to go on", async (t) => {
  const { cx, end } = await orphaned(t);
  t.match(cx.report.view().error, {
    code: "in-doubt",
    message: /is being asked whether it holds a copy/,
    guestNow: /runs nowhere/,
    advice: /resolve 0123456789ab --keep destination/,
  });
  t.equal(cx.words.asker, "orphaned");
  await end;
});

t.test("a destination that runs the guest settles it, and one that has no copy leaves only a new start", async (t) => {
  for (const standing of ["running", "pulling"] as const) {
    const { destination, end, cx } = await orphaned(t);
    destination.answersInTurn(["waiting", "starting", standing]);
    t.match(await end, { kind: "releasing" }, standing);
    t.same([...new Set(destination.asked)], ["standing"]);
    t.equal(cx.report.view().error, undefined);
  }
  for (const standing of ["refused", "unknown", "lost"] as const) {
    const { destination, end, record } = await orphaned(t);
    destination.answersInTurn([standing]);
    const error = { code: "qemu-failed", guestNow: /is gone: .*\(so it is\)/, advice: /ferry --agent .* list/ };
    t.match(await end, { kind: "kept", fault: error }, standing);
    t.match(await record(), { kind: "kept" });
    t.notOk((await record())?.untold, "a copy that the destination keeps is the operator's, and is not withdrawn");
  }
});

t.test(
  "the operator is told that a supervisor has started the guest again, since the other copy would be a second one",
  async (t) => {
    const { destination, qemu, says, end, cx } = await orphaned(t);
    destination.answersInTurn(["waiting"]);
    const other = await FakeQemu.start(t, { status: "running" }, qemu.path);
    await says(/another QEMU of the guest/);
    t.match(cx.report.view().error?.advice, /end the copy at the destination: .*--keep source; else end it here first/);
    destination.answersInTurn(["refused"]);
    t.match(await end, { kind: "kept", fault: { guestNow: /another QEMU of the guest runs here/ } });
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
