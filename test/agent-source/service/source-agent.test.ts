/** Tests migrations that are refused before anything is touched. */
import { join } from "node:path";
import t from "tap";
import type { SourceAgentParts } from "../../../agent-source/service/recovery.ts";
import { SourceAgent } from "../../../agent-source/service/source-agent.ts";
import { call } from "../../support/link-fixtures.ts";

/** With these settings any destination may be named, and could dial in. */
const WAY = { destinationsAllowed: [], advertise: "alpha:7411" };

t.test("a migration beyond `migrations.max` is refused before anything is touched", async (t) => {
  const guestsDirectory = t.testdir({
    "web.json": JSON.stringify({ name: "web", qmp: "/run/web.qmp", command: ["qemu"] }),
  });
  // the agent has only what is read before the refusal: to touch anything else would be a TypeError
  const config = { migrationsMax: 0, guestsDirectory, runtimeDirectory: join(guestsDirectory, "run"), ...WAY };
  const agent = new SourceAgent({ config, journal: { unreadable: [] } } as unknown as SourceAgentParts);
  await t.rejects(agent.migrate(call), { code: "busy", message: /0 migrations under way/, advice: /Wait/ });
  t.same(agent.listMigrations(), []);
});

t.test("nothing is touched when the destination may not be named, or could not dial in", async (t) => {
  const agent = (config: object): SourceAgent =>
    new SourceAgent({ config: { ...WAY, ...config }, journal: { unreadable: [] } } as unknown as SourceAgentParts);
  const guestNow = "the guest runs here, and nothing was touched";
  const plan = { migration: call, observeMs: 0 };
  const elsewhere = agent({ destinationsAllowed: ["gamma"] });
  for (const asked of [() => elsewhere.migrate(call), () => elsewhere.plan(plan)])
    await t.rejects(Promise.resolve().then<unknown>(asked), {
      code: "not-authorised",
      guestNow,
      message: /^host-b:7412 is not among the destinations/,
    });
  const alone = agent({ advertise: "" });
  for (const asked of [() => alone.migrate(call), () => alone.plan(plan)])
    await t.rejects(Promise.resolve().then<unknown>(asked), {
      code: "configuration",
      guestNow,
      message: /has no address that a destination can dial/,
      advice: /Set listen/,
    });
});
