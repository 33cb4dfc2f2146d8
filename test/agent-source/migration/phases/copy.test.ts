/** Tests the state *copying*: what ends it, and that nothing is said to QEMU meanwhile. */
import t from "tap";
import { copy } from "../../../../agent-source/migration/phases/copy.ts";
import { MigrationFault } from "../../../../shared/fault.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { type Migrating, type MigratingOptions, migrating, until } from "../../../support/migrating.ts";

async function copying(t: Parameters<typeof migrating>[0], options: MigratingOptions = {}) {
  const phase = await migrating(t, options);
  const end = copy({ kind: "copying", session: phase.session }, phase.cx);
  end.catch(() => undefined);
  return { ...phase, end };
}

t.test("the policy's decision begins the switchover in the way that it names, with its reason", async (t) => {
  for (const into of ["destination", "postcopy"] as const) {
    const { session, end, happened } = await copying(t);
    session.decision.resolve({ kind: "switch", into, reason: "12 ms are left" });
    t.same(await end, { kind: "switching", session, into, reason: "12 ms are left" });
    t.same(happened, [], "neither QEMU nor the destination is told anything in this state");
  }
});

t.test("a QEMU that completes by itself, since its guest stands still, is followed into the switchover", async (t) => {
  const { session, end } = await copying(t);
  session.completing.resolve();
  t.same(await end, { kind: "switching", session, into: "nothing", reason: "" });
});

t.test("a migration that the policy gives up fails with `deadline`, with the reason and what to do", async (t) => {
  const { session, end } = await copying(t);
  session.decision.resolve({ kind: "cancel", reason: "the deadline of 60 s is over" });
  await t.rejects(end, {
    code: "deadline",
    message: "The migration was given up: the deadline of 60 s is over",
    advice: /longer --deadline or a larger --downtime, or use --on-deadline force/,
  });
});

t.test("the operator's cancel ends the copy with `cancelled`", async (t) => {
  const { cancel, end } = await copying(t);
  cancel();
  await t.rejects(end, { code: "cancelled", message: "Cancelled by the operator" });
});

t.test("a destination that gives up while pages flow ends the copy with its words", async (t) => {
  const { there, end } = await copying(t);
  there.say({ kind: "failure", code: "internal", message: "its disk is full", refusedToken: new Uint8Array() });
  await t.rejects(end, { code: "peer-failed", message: "The destination gave up: its disk is full" });
});

t.test("a QEMU whose migration somebody else has cancelled ends the copy, and the fault says so", async (t) => {
  const { stream, end } = await copying(t, { stream: {} });
  stream.breakStream("cancelled");
  await t.rejects(end, { code: "qemu-failed", message: /Somebody else has cancelled/, advice: /who uses the monitor/ });
});

t.test("a destination that says nothing for link.giveUpAfter over a link that is up is given up", async (t) => {
  const clock = new FakeClock();
  const { there, cx, end } = await copying(t, { clock });
  await clock.advance(2 * cx.config.link.giveUpAfterMs);
  there.answers = false;
  await clock.advance(2 * cx.config.link.giveUpAfterMs);
  await t.rejects(end, {
    code: "peer-lost",
    message: /has said nothing for \d+ ms \(link.giveUpAfter\), although the link to it is up/,
    role: "destination",
  });
});

t.test("a link that is cut is not silence: the copy goes on, and the destination may dial again", async (t) => {
  const clock = new FakeClock();
  const { session, there, cx, end } = await copying(t, { clock });
  there.cut();
  await until(() => session.channel.isCut, "the cut");
  await clock.advance(2 * cx.config.link.giveUpAfterMs);
  there.dial();
  session.decision.resolve({ kind: "switch", into: "destination", reason: "it fits" });
  t.match(await end, { kind: "switching" });
});

t.test("the operator sees how many passes QEMU has begun, and no longer after the copy", async (t) => {
  const { qemu, cx, session, end }: Migrating & { end: Promise<unknown> } = await copying(t);
  qemu.announce("MIGRATION_PASS", { pass: 3 });
  await until(() => cx.report.passes === 3, "the pass in the report");
  session.fail(new MigrationFault("cancelled", "enough"));
  await t.rejects(end, { code: "cancelled" });
  qemu.announce("MIGRATION_PASS", { pass: 4 });
  await session.qmp.execute("query-status");
  t.equal(cx.report.passes, 3);
});
