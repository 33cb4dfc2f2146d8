/** Tests what `OutgoingDesk` tells the operator of a migration under way, and how long a cancel is waited for. */
import t, { type Test } from "tap";
import { Announcer } from "../../../agent-source/service/announcer.ts";
import { OutgoingDesk } from "../../../agent-source/service/outgoing-desk.ts";
import type { MigrationStatus, MigrationView } from "../../../shared/protocol/report.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { sourcePhase } from "../../support/source-cx.ts";

/** Makes the desk of an agent that moves one guest. */
async function withOne(t: Test, status: MigrationStatus = "copying") {
  const clock = new FakeClock();
  const phase = await sourcePhase(t, "running");
  const cx = { ...phase.cx, clock };
  cx.report.status = status;
  const announcer = new Announcer(() => cx.report.view(), clock);
  const ended = deferred<void>();
  const cancel = new AbortController();
  const desk = new OutgoingDesk(cx.journal);
  desk.entries.set(cx.id, {
    ...{ cx, cancel, announcer, arrived: deferred<void>(), link: undefined },
    ended: ended.promise,
  });
  const become = (next: MigrationStatus): void => {
    cx.report.status = next;
    announcer.changed(true);
  };
  return { clock, cx, desk, cancel, become, end: () => ended.resolve() };
}

t.test("an operator who watches sees a migration at once, each 200 ms, and at its end", async (t) => {
  const { clock, cx, desk, become } = await withOne(t);
  const seen: MigrationStatus[] = [];
  desk.watch(cx.id, ({ status }) => void seen.push(status));
  t.same(seen, ["copying"]);
  await clock.advance(199);
  t.equal(seen.length, 1);
  await clock.advance(401);
  t.same(seen, ["copying", "copying", "copying", "copying"]);
  become("moved");
  t.same(seen.slice(4), ["moved"]);
  await clock.advance(1000);
  t.equal(seen.length, 5);
  t.equal(clock.pending, 0);
});

t.test("an operator who has seen enough is told nothing more", async (t) => {
  const { clock, cx, desk, become } = await withOne(t);
  const seen: MigrationView[] = [];
  const enough = desk.watch(cx.id, (view) => void seen.push(view));
  enough();
  become("switching");
  await clock.advance(1000);
  t.equal(seen.length, 1);
  t.equal(clock.pending, 0);
});

t.test("a cancel is answered when the migration has ended, or waits for somebody", async (t) => {
  const ends = await withOne(t);
  const cancelled = ends.desk.cancel(ends.cx.id);
  t.match(ends.cancel.signal.reason, { code: "cancelled" });
  ends.cx.report.status = "cancelled";
  ends.end();
  t.match(await cancelled, { status: "cancelled" });
  const waits = await withOne(t);
  const answered = waits.desk.cancel(waits.cx.id);
  waits.become("inDoubt");
  t.match(await answered, { status: "inDoubt" });
  t.equal(waits.clock.pending + ends.clock.pending, 0);
});

t.test("a cancel is answered after 20 s, also where QEMU does not answer", async (t) => {
  const { clock, cx, desk } = await withOne(t);
  let view: MigrationView | undefined;
  const cancelled = desk.cancel(cx.id).then((answer) => {
    view = answer;
  });
  await clock.advance(19_999);
  t.equal(view, undefined);
  await clock.advance(1);
  await cancelled;
  t.match(view, { status: "copying" });
});

t.test("a guest that is being handed over is not cancelled", async (t) => {
  const { cx, desk, cancel } = await withOne(t, "granting");
  await t.rejects(desk.cancel(cx.id), { code: "too-late" });
  t.notOk(cancel.signal.aborted);
});
