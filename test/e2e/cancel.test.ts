/**
 * Cancels migrations while pages are copied: the guest stays at the source as if nothing had happened, and the next
 * attempt succeeds.
 */
import t from "tap";
import type { MigrationView } from "../../shared/protocol/report.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { ferryJson, migrate, requireMoved, slowLink, startMigrate } from "../support/ferry-json.ts";
import { openPair } from "../support/pair.ts";

t.setTimeout(180_000);

t.test("a migration that is cancelled leaves the guest where it is, and the next one moves it", async (t) => {
  // the guest has so much memory that is not zero that a slow link needs seconds for it
  const workload = { regionMiB: 32, fillMiB: 128, rate: 10e6 };
  const { rig, a, b } = await openPair(t, { guest: { name: "stayer", workload } });
  const slow = ["--strategy", "precopy", ...(await slowLink(rig, 100e6))];

  await t.test("ferry cancel exits with 0, and the ferry migrate that it cancels exits with 3", async (t) => {
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

  await t.test("Ctrl-C at ferry migrate cancels the migration too", async (t) => {
    const run = await startMigrate(rig, a, b, "stayer", slow);
    await run.copying();
    run.interrupt();
    const { code, answer } = await run.end();
    t.equal(code, 3);
    t.match(answer, { status: "cancelled", error: { code: "cancelled" } });
    await assertOneGuest(t, rig, { name: "stayer", at: rig.a });
  });

  await t.test("a migration that the agent does not know cannot be cancelled", async (t) => {
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
