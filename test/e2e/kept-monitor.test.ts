/**
 * Kills the destination agent of a migration that might have come into post-copy, and did not. A keeper holds the
 * monitor of the guest's QEMU, whichever agent there is, so the next agent can use that monitor.
 */
import t from "tap";
import { isFinal, type MigrationView } from "../../shared/protocol/report.ts";
import { assertOneGuest } from "../support/after-migration.ts";
import { listMigrations, startAgent } from "../support/agents.ts";
import { eventually } from "../support/bounded.ts";
import { startMigrate } from "../support/ferry-json.ts";
import { IDLE, openPair } from "../support/pair.ts";

t.setTimeout(240_000);
const NAME = "kept";
const HELD = { timeoutMs: 60_000 };
const SETTLES = { timeoutMs: 60_000, everyMs: 500 };
/** Options with which post-copy is agreed on, and not needed. */
const MIGHT = ["--strategy", "precopy", "--deadline", "10m", "--on-deadline", "postcopy"];

t.test("an agent that starts after the destination agent was killed has the monitor of the guest's QEMU", async (t) => {
  const pair = await openPair(t, { guest: { name: NAME, workload: IDLE } });
  const { rig } = pair;
  const from = pair.a;
  let to = pair.b;
  for (const [state, status, at] of [
    // the source has not heard that the guest is loaded, and takes the guest back
    ["loaded", "failed", from.host],
    ["starting", "moved", to.host],
  ] as const)
    await t.test(`the agent that follows one killed in ${state} ends the migration`, async (t) => {
      await to.destination.stop();
      to = { ...to, destination: await startAgent(rig, to.host, "destination", [`--faults=hold-at=${state}`]) };
      const run = await startMigrate(rig, from, to, NAME, MIGHT);
      const held = new RegExp(`"migration":"(\\w+)"[^\\n]*"held":"${state}"`);
      const [, id] = await to.destination.waitForOutput(held, HELD);
      to.destination.signal("SIGKILL");
      await to.destination.ended;
      to = { ...to, destination: await startAgent(rig, to.host, "destination") };
      const ended = async (): Promise<MigrationView | undefined> =>
        (await listMigrations(rig, from)).find((one) => one.id === id && isFinal(one.status));
      t.match(await eventually(ended, { ...SETTLES, what: "the end of the migration" }), { status });
      await run.end();
      await assertOneGuest(t, rig, { name: NAME, at });
    });
});
