/**
 * Tests post-copy of a guest that writes nothing. QEMU has sent all of the guest before it is stopped, and completes as
 * precopy does. The destination then has the whole guest. The source's record must say so, since an agent may end a
 * copy that misses pages, but must keep a whole one.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { closeRig, processesOf } from "../support/after-migration.ts";
import { startAgent, startAgents } from "../support/agents.ts";
import { biosDefinition } from "../support/bios-guest.ts";
import { startMigrate } from "../support/ferry-json.ts";
import { Rig } from "../support/rig.ts";

t.setTimeout(120_000);
const NAME = "still";
/** The guest's program: cli; HALT: hlt; jmp HALT */
const PROGRAM = Uint8Array.of(0xfa, 0xf4, 0xeb, 0xfd);

t.test("a post-copy that has no pages left to send is recorded as complete before the grant", async (t) => {
  const rig = await Rig.open();
  t.teardown(() => closeRig(rig));
  const definition = biosDefinition(rig, NAME, PROGRAM, "-accel tcg -m 16");
  rig.writeDefinition(definition);
  await rig.startGuest(rig.a, definition);
  const [a, b] = await Promise.all([startAgents(rig, rig.a), startAgents(rig, rig.b)]);
  await a.source.stop();
  const held = { ...a, source: await startAgent(rig, rig.a, "source", ["--faults=hold-at=granting"]) };
  const run = await startMigrate(rig, held, b, NAME, ["--strategy", "postcopy"]);
  await held.source.waitForOutput(/"held":"granting"/, { timeoutMs: 60_000 });
  const folder = join(rig.a.stateDirectory, "source");
  const files = readdirSync(folder).filter((file) => file.endsWith(".json"));
  const [record] = files.map((file) => JSON.parse(readFileSync(join(folder, file), "utf8")) as { record: unknown });
  t.match(record, { record: { kind: "granted", postcopy: { complete: true } } });
  held.source.signal("SIGUSR2");
  const { code, answer } = await run.end();
  t.match({ code, answer }, { code: 0, answer: { status: "moved" } });
  t.same(
    [rig.a, rig.b].map((host) => processesOf(rig, host, NAME).length),
    [0, 1],
  );
});
