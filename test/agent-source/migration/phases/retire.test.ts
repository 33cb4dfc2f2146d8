/** Tests the state *retiring*: the end of QEMU's migration at the source, for each run state in which QEMU may be. */
import t, { type Test } from "tap";
import { completeMigration, retire } from "../../../../agent-source/migration/phases/retire.ts";
import { QmpClient } from "../../../../shared/qemu/qmp/qmp-client.ts";
import { systemClock } from "../../../../shared/runtime/clock.ts";
import { FakeQemu } from "../../../support/fake-qemu.ts";
import { loadedOf, type MigratingOptions, migrating, until } from "../../../support/migrating.ts";

/** Makes a migration whose QEMU has written its stream and waits for SHUT. */
async function retiring(t: Test, options: MigratingOptions = {}) {
  const phase = await migrating(t, { stream: {}, ...options });
  const { session, happened, cx } = phase;
  session.letStop();
  await session.endWhenRead();
  await phase.there.until("endOfStream");
  happened.length = 0;
  const loaded = loadedOf(session);
  return { ...phase, loaded, retired: () => retire({ kind: "retiring", loaded }, cx) };
}

/** Makes a migration whose QEMU is in post-copy and has sent its package. */
async function inPostcopy(t: Test) {
  const phase = await migrating(t, { stream: { postcopy: true } });
  await phase.session.letPostcopy(async () => undefined);
  await phase.session.packaged.promise;
  await until(() => phase.qemu.state.migration === "postcopy-active", "post-copy");
  phase.happened.length = 0;
  const loaded = loadedOf(phase.session);
  return { ...phase, loaded, retired: () => retire({ kind: "retiring", loaded }, phase.cx) };
}

t.test("SHUT is all that QEMU is told, and QEMU is postmigrate before anything is recorded", async (t) => {
  const { retired, loaded, happened, qemu } = await retiring(t);
  t.same(await retired(), { kind: "recording", loaded });
  t.same(happened, ["qemu hears: shut 0"]);
  t.equal(qemu.state.status, "postmigrate");
});

t.test("a migration that was cancelled hears no SHUT, since QEMU then resumes the guest by itself", async (t) => {
  const { retired, cancel, session } = await retiring(t);
  cancel();
  await t.rejects(retired(), { code: "cancelled" });
  t.ok(session.awaitsShut);
});

t.test("a cancel while QEMU completes is heard at once", async (t) => {
  const { retired, cancel, happened } = await retiring(t, { stream: { completes: false } });
  const end = retired();
  await until(() => happened.length > 0, "SHUT");
  cancel();
  await t.rejects(end, { code: "cancelled" });
});

t.test(
  "a QEMU that ends before it has completed does not lose the guest, which is whole at the destination",
  async (t) => {
    const { retired, loaded, qemu, cx } = await retiring(t, { stream: { completes: false } });
    await qemu.end();
    t.same(await retired(), { kind: "recording", loaded });
    t.same(cx.report.degradations, [
      "The source QEMU ended during the switchover; the guest was saved at the destination",
    ]);
  },
);

t.test("the guest is not granted when somebody has started it here before its QEMU ended", async (t) => {
  const { retired, session, qemu } = await retiring(t, { stream: { completes: false } });
  qemu.become("running");
  await until(() => !session.runs.standsStill, "the guest to run here");
  await qemu.end();
  await t.rejects(retired(), { code: "qmp-disconnected" });
});

t.test("a monitor that closes while its QEMU lives proves nothing, so the guest is not granted", async (t) => {
  const { retired, session, qmp, qemu } = await retiring(t, { stream: { completes: false } });
  qmp.close();
  await until(() => session.qemuLost, "the end of the monitor");
  await t.rejects(retired(), { code: "qmp-disconnected" });
  t.ok(qemu.isAlive);
});

t.test("in post-copy QEMU is told nothing, since this agent itself has stopped the guest", async (t) => {
  const { retired, loaded, happened } = await inPostcopy(t);
  t.same(await retired(), { kind: "recording", loaded });
  t.same(happened, []);
});

t.test("a post-copy whose QEMU has left it is not granted, since nobody would send the missing pages", async (t) => {
  for (const status of ["failed", "postcopy-paused", "cancelled", "none"]) {
    const { retired, qemu } = await inPostcopy(t);
    qemu.state.migration = status;
    await t.rejects(retired(), {
      code: "qemu-failed",
      message: `The source QEMU's migration is ${status === "none" ? undefined : status} in post-copy, and sends no pages`,
    });
  }
});

t.test("a post-copy that was cancelled is not granted", async (t) => {
  const { retired, cancel } = await inPostcopy(t);
  cancel();
  await t.rejects(retired(), { code: "cancelled" });
});

/** Lets a QEMU complete its migration and show these run states, one for each look; QEMU stays in the last one. */
async function completed(t: Test, ...statuses: readonly [string, ...string[]]): Promise<void> {
  const [first] = statuses;
  const qemu = await FakeQemu.start(t, { status: first, migration: "device" });
  const later = [...statuses];
  qemu.whim = ({ execute }) => {
    if (execute === "query-status") qemu.state.status = later.shift() ?? qemu.state.status;
    return undefined;
  };
  const qmp = await QmpClient.connect(qemu.path);
  t.teardown(() => qmp.close());
  const shut = (): void => qemu.migrationIs("completed");
  await completeMigration({ qmp, signal: new AbortController().signal, shut }, systemClock);
  t.same(later, [], "every state was seen");
}

t.test("a QEMU that has completed its migration is waited for until it has left finish-migrate", (t) =>
  completed(t, "finish-migrate", "finish-migrate", "finish-migrate", "postmigrate"),
);

t.test("a QEMU that is retired already is not asked again", (t) => completed(t, "postmigrate"));

t.test("a QEMU that somebody has started meanwhile is reported as running", (t) =>
  t.rejects(completed(t, "finish-migrate", "running"), {
    code: "qemu-failed",
    message: "The source QEMU is running after its migration, not postmigrate",
  }),
);
