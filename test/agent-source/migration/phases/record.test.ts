/** Tests the state *recording*: `granted` is on the disk before anything else can happen to the grant. */
import t, { type Test } from "tap";
import { record as recordGrant } from "../../../../agent-source/migration/phases/record.ts";
import { MigrationFault } from "../../../../shared/fault.ts";
import { loadedOf, migrating, until } from "../../../support/migrating.ts";

async function recording(t: Test) {
  const phase = await migrating(t, { status: "postmigrate" });
  const loaded = loadedOf(phase.session);
  return { ...phase, loaded, recorded: () => recordGrant({ kind: "recording", loaded }, phase.cx) };
}

t.test("the journal says `granted` with the token before the destination hears of the grant", async (t) => {
  const { recorded, loaded, happened, record, cx } = await recording(t);
  t.same(await recorded(), { kind: "granting", loaded });
  t.same(happened, ["journal: granted"]);
  const token = Buffer.from(cx.token).toString("hex");
  t.match(await record(), { kind: "granted", grant: { token, epoch: 1 }, settings: { parameters: {} } });
});

t.test("the record says whether the guest is granted running or paused", async (t) => {
  for (const paused of [false, true]) {
    const { recorded, session, record } = await recording(t);
    session.paused = paused;
    await recorded();
    t.equal((await record())?.grant.paused, paused);
  }
});

t.test(
  "a disk that does not take `granted` ends the migration, since an unwritten grant must not be sent",
  async (t) => {
    const { recorded, failWrites, there, session } = await recording(t);
    failWrites(true);
    await t.rejects(recorded(), { code: "state-directory", message: /ENOSPC/ });
    t.same(there.kinds, []);
    session.fail(new MigrationFault("cancelled", "by the operator"));
    t.ok(session.signal.aborted, "the migration may still be cancelled");
  },
);

t.test("a migration that was cancelled before is not granted", async (t) => {
  const { recorded, cancel, happened } = await recording(t);
  cancel();
  await t.rejects(recorded(), { code: "cancelled" });
  t.same(happened, []);
});

t.test("from the record on the operator's cancel has no effect any more", async (t) => {
  const { recorded, cancel, session } = await recording(t);
  await recorded();
  cancel();
  t.notOk(session.signal.aborted);
});

t.test("nothing is granted while the link is down: the grant could not be sent, and would be in doubt", async (t) => {
  const { recorded, there, session, happened, failWrites } = await recording(t);
  there.cut();
  await until(() => session.channel.isCut, "the cut");
  // a record that was written now would fail the state
  failWrites(true);
  const done = recorded();
  await session.qmp.execute("query-status");
  failWrites(false);
  there.dial();
  t.match(await done, { kind: "granting" });
  t.same(happened, ["journal: granted"]);
});
