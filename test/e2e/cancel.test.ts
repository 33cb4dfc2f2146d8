/** Cancelled while pages are copied: as if nothing had been, and the next attempt succeeds. */
import t from "tap";
import type { MigrationView } from "../../shared/protocol/report.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { ferryJson, migrate, requireMoved, slowLink, startMigrate } from "../support/ferry-json.ts";
import { openPair } from "../support/pair.ts";

t.setTimeout(180_000);

t.test("a migration that is cancelled leaves the guest where it is, and the next one moves it", async (t) => {
  // enough memory that is not zero for seconds on a slow link
  const workload = { regionMiB: 32, fillMiB: 128, rate: 10e6 };
  const { rig, a, b } = await openPair(t, { guest: { name: "stayer", workload } });
  const slow = await slowLink(rig, 100e6);

  await t.test("ferry cancel exits with 0, and the ferry that migrates with 3", async (t) => {
    const run = await startMigrate(rig, a, b, "stayer", slow);
    const id = await run.copying();
    const cancelled = await ferryJson<MigrationView>(rig, a, ["cancel", id]);
    t.equal(cancelled.code, 0);
    t.match(cancelled.answer, { id, status: "cancelled", error: { code: "cancelled" } });
    const { code, answer } = await run.end();
    t.equal(code, 3);
    t.match(answer, { id, status: "cancelled", error: { code: "cancelled", guestNow: /runs at the source/ } });
    t.equal(answer.result, undefined);
    await assertOneGuest(t, rig, { name: "stayer", at: rig.a });
  });

  await t.test("Ctrl-C cancels too", async (t) => {
    const run = await startMigrate(rig, a, b, "stayer", slow);
    await run.copying();
    run.interrupt();
    const { code, answer } = await run.end();
    t.equal(code, 3);
    t.match(answer, { status: "cancelled", error: { code: "cancelled" } });
    await assertOneGuest(t, rig, { name: "stayer", at: rig.a });
  });

  await t.test("a migration that has ended cannot be cancelled", async (t) => {
    const unknown = await ferryJson(rig, a, ["cancel", "0123456789ab"]);
    t.equal(unknown.code, 1);
    t.match(unknown.answer, { error: { code: "migration-unknown" } });
  });

  await t.test("the next attempt moves the guest", async (t) => {
    await rig.network.setRate(1e9);
    requireMoved(await migrate(rig, a, b, "stayer"));
    await assertOneGuest(t, rig, { name: "stayer", at: rig.b });
  });
});
