/**
 * Tests the agents as programs: how they start, how they refuse to start, and how they stop, also in the middle of a
 * migration.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { assertOneGuest } from "../support/after-migration.ts";
import { spawnAgent, startAgent } from "../support/agents.ts";
import { bounded } from "../support/bounded.ts";
import { migrate, requireMoved, slowLink, startMigrate } from "../support/ferry-json.ts";
import { openPair } from "../support/pair.ts";

t.setTimeout(180_000);
const ENDS_MS = 20_000;

t.test("the agents start, refuse to start, and stop in order", async (t) => {
  const workload = { regionMiB: 32, fillMiB: 128, rate: 10e6 };
  const { rig, a, b } = await openPair(t, { guest: { name: "served", workload } });

  await t.test("an agent that is given an unknown key exits with 2, and names the key that was meant", async (t) => {
    const flag = await spawnAgent(rig, rig.a, "source", ["--memory-arenas=1GiB"]);
    t.match(await bounded(flag.ended, ENDS_MS, "its end"), { code: 2 });
    t.match(flag.output(), /"--memory-arenas=1GiB" on the command line[\s\S]*--memory-arena\?/);
    const file = join(rig.folder, "destination.json");
    writeFileSync(file, JSON.stringify({ memory: { reserved: "1GiB" } }));
    const inFile = await spawnAgent(rig, rig.a, "destination", [`--config=${file}`]);
    t.match(await bounded(inFile.ended, ENDS_MS, "its end"), { code: 2 });
    t.match(inFile.output(), /"memory\.reserved" in .*destination\.json[\s\S]*memory\.reserve\?/);
  });

  await t.test("an agent sets the umask 0077, so what it or its QEMU makes is for its own user only", async (t) => {
    for (const { pid } of [a.source, b.destination])
      t.match(readFileSync(`/proc/${pid}/status`, "latin1"), /^Umask:\s+0077$/m);
  });

  const slow = ["--strategy", "precopy", ...(await slowLink(rig, 100e6))];

  await t.test("a destination agent that is stopped during a migration leaves nothing at its host", async (t) => {
    const run = await startMigrate(rig, a, b, "served", slow);
    await run.copying();
    t.match(await b.destination.stop(), { code: 0, signal: null });
    const { code, answer } = await run.end();
    t.equal(code, 1);
    t.match(answer, { status: "failed", error: { guestNow: /runs at the source/ } });
    t.match(answer.error?.code, /^(stopping|peer-lost|peer-failed)$/);
    await assertOneGuest(t, rig, { name: "served", at: rig.a });
  });

  await t.test("a source agent that is stopped during a migration leaves the guest running", async (t) => {
    await startAgent(rig, rig.b, "destination");
    const run = await startMigrate(rig, a, b, "served", slow);
    await run.copying();
    t.match(await a.source.stop(), { code: 0, signal: null });
    const { code, answer } = await run.end();
    t.equal(code, 1);
    t.match(answer, { error: { code: "stopping", guestNow: /runs at the source/ } });
    await assertOneGuest(t, rig, { name: "served", at: rig.a });
  });

  await t.test("agents that were started again move the guest, and the guest outlives them", async (t) => {
    await rig.network.setRate(1e9);
    const source = await startAgent(rig, rig.a, "source");
    requireMoved(await migrate(rig, { ...a, source }, b, "served"));
    const stopped = await Promise.all([source, b.source, a.destination].map((agent) => agent.stop()));
    t.same(
      stopped.map(({ code }) => code),
      [0, 0, 0],
    );
    await assertOneGuest(t, rig, { name: "served", at: rig.b });
  });
});
