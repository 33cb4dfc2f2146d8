/** Tests the state *withdrawing*, which ends when the destination has heard it, or runs the guest all the same. */
import t, { type Test } from "tap";
import { withdraw } from "../../../../agent-source/migration/phases/withdraw.ts";
import { MigrationFault } from "../../../../shared/fault.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { passing } from "../../../support/migrating.ts";
import { sourcePhase } from "../../../support/source-cx.ts";

const FAULT = new MigrationFault("cancelled", "by the operator", { guestNow: "the guest runs at the source" });

async function withdrawing(t: Test, status: string) {
  const phase = await sourcePhase(t, status);
  return { ...phase, withdrawn: () => withdraw({ kind: "withdrawing", fault: FAULT }, phase.cx) };
}

t.test("the withdrawal is said with the word that the journal has, and written down once it was heard", async (t) => {
  const { withdrawn, destination, record, qemu } = await withdrawing(t, "running");
  destination.answersInTurn(["waiting", "refused"]);
  t.match(await withdrawn(), { kind: "kept", fault: FAULT });
  t.match(destination.calls, [{ ask: "kept" }, { ask: "kept" }]);
  const found = await record();
  t.match(found, { kind: "kept", reason: { code: "cancelled" } });
  t.notOk(found?.untold);
  t.same(qemu.said, []);
});

t.test("a guest that runs at both hosts is doubled", async (t) => {
  const { withdrawn, destination, written } = await withdrawing(t, "running");
  destination.answersInTurn(["running"]);
  t.match(await withdrawn(), { kind: "doubled", fault: { code: "two-copies" } });
  t.same(written, []);
});

t.test("when the copy here has ended, the guest stays where the operator's word has started it", async (t) => {
  const { withdrawn, destination } = await withdrawing(t, "gone");
  destination.answersInTurn(["running"]);
  t.match(await withdrawn(), { kind: "kept" });
});

t.test("a source QEMU that cannot be looked at leaves the withdrawal open, and it is tried again", async (t) => {
  const { withdrawn, destination, qemu } = await withdrawing(t, "running");
  qemu.whim = ({ execute }) => (execute === "query-status" ? "it is busy" : undefined);
  destination.answersInTurn(["running"]);
  await t.rejects(withdrawn(), { code: "qemu-failed", message: /cannot be looked at/ });
});

t.test("when the disk takes no record, the withdrawal is left to the next start of the agent", async (t) => {
  const { withdrawn, destination, failWrites, record } = await withdrawing(t, "running");
  failWrites(true);
  destination.answersInTurn(["refused"]);
  t.match(await withdrawn(), { kind: "kept" });
  t.equal(await record(), undefined);
});

t.test(
  "a destination that cannot be asked is told again and again, up to every 30 s, until the agent leaves",
  async (t) => {
    const clock = new FakeClock();
    const { cx, destination, written, leave } = await sourcePhase(t, "running", { clock });
    let asked = 0;
    destination.answer = () => {
      asked++;
      throw new TypeError("it is about to start");
    };
    const end = withdraw({ kind: "withdrawing", fault: FAULT }, cx);
    end.catch(() => undefined);
    await passing(clock, destination.untilAsked(12), 1000);
    t.ok(clock.monotonicMs() >= 100_000, `${asked} tries took ${clock.monotonicMs()} ms`);
    t.match(cx.report.view().error, { code: "cancelled", guestNow: "the guest runs at the source" });
    leave();
    await t.rejects(end, { code: "stopping" });
    t.same(written, [], "the next life of the agent tells it too");
  },
);
