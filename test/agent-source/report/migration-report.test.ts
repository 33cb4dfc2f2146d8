/** Tests when `MigrationReport` shows the agreed terms. */
import t from "tap";
import { MigrationReport } from "../../../agent-source/report/migration-report.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { MIGRATE_OPTIONS } from "../../support/frames.ts";

t.test("the agreed terms are shown before the first page goes, and are no news afterwards", async (t) => {
  const report = new MigrationReport("m", { guest: "web", to: "b:1", options: MIGRATE_OPTIONS }, systemClock);
  t.notOk(report.showsTerms, "nothing is agreed yet");
  report.negotiated = { strategy: "precopy" };
  t.ok(report.showsTerms);
  t.match(report.view(), { status: "preparing", negotiated: { strategy: "precopy" }, progress: { bytesSent: 0 } });
  report.status = "copying";
  t.notOk(report.showsTerms);
});
