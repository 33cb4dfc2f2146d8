/** Migrations that are refused before anything is touched. */
import { join } from "node:path";
import t from "tap";
import type { SourceAgentParts } from "../../agent-source/recovery.ts";
import { SourceAgent } from "../../agent-source/source-agent.ts";
import { call } from "../support/link-fixtures.ts";

t.test("a migration more than there may be is refused before anything is touched", async (t) => {
  const guestsDirectory = t.testdir({
    "web.json": JSON.stringify({ name: "web", qmp: "/run/web.qmp", command: ["qemu"] }),
  });
  // no more than what is looked at before the refusal: whatever else were touched would be a TypeError
  const config = { migrationsMax: 0, guestsDirectory, runtimeDirectory: join(guestsDirectory, "run") };
  const agent = new SourceAgent({ config, journal: { unreadable: [] } } as unknown as SourceAgentParts);
  await t.rejects(agent.migrate(call), { code: "busy", message: /0 migrations under way/, advice: /Wait/ });
  t.same(agent.listMigrations(), []);
});
