/** A journal that takes no more: nothing is given away that was not written down, and nobody is left behind. */
import { execFileSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { assertOneGuest } from "../support/after-migration.ts";
import { type HostAgents, startAgent } from "../support/agents.ts";
import { migrate, requireMoved, startMigrate } from "../support/ferry-json.ts";
import { IDLE, openPair } from "../support/pair.ts";
import type { RigProcess } from "../support/process.ts";
import { atTeardown } from "../support/teardown.ts";

t.setTimeout(180_000);
const NAME = "journalled";
const HELD = { timeoutMs: 60_000 };
/** Room for a few records. */
const DISK = "size=64k,mode=700";

/** A disk of its own for the journal of an agent, which is stopped for it. */
async function onSmallDisk(
  t: { teardown(done: () => unknown): unknown },
  agents: HostAgents,
  kind: "source" | "destination",
) {
  const directory = join(agents.host.stateDirectory, kind);
  const filler = join(directory, "filler");
  await agents[kind].stop();
  execFileSync("mount", ["-t", "tmpfs", "-o", DISK, "tmpfs", directory]);
  const unmount = (): void => void execFileSync("umount", ["--lazy", directory]);
  const forget = atTeardown(unmount);
  t.teardown(() => {
    forget();
    unmount();
  });
  return {
    fill: () => {
      try {
        writeFileSync(filler, Buffer.alloc(1 << 20));
      } catch (thrown) {
        if (!String(thrown).includes("ENOSPC")) throw thrown;
      }
    },
    free: () => rmSync(filler, { force: true }),
  };
}

/** The disk is full from the moment at which the agent is held on. */
async function fillAt(agent: RigProcess, state: string, disk: { fill: () => void }): Promise<void> {
  await agent.waitForOutput(new RegExp(`"held":"${state}"`), HELD);
  disk.fill();
  process.kill(agent.pid, "SIGUSR2");
}

const isRoot = process.getuid?.() === 0;

t.test("a guest moves only with what its journals can hold", { skip: !isRoot && "needs root, to mount" }, async (t) => {
  const pair = await openPair(t, { guest: { name: NAME, workload: IDLE } });
  const { rig, a, b } = pair;

  await t.test("the source cannot write granted: the guest goes on there", async (t) => {
    const disk = await onSmallDisk(t, a, "source");
    // ahead of the moment in which the record is prepared (Journal.prepare)
    const source = await startAgent(rig, rig.a, "source", ["--faults=hold-at=switching"]);
    const run = await startMigrate(rig, a, b, NAME);
    await fillAt(source, "switching", disk);
    const { code, answer } = await run.end();
    const error = { code: "state-directory", message: /ENOSPC|no space/, guestNow: /runs at the source/ };
    t.match({ code, answer }, { code: 1, answer: { status: "failed", error } });
    disk.free();
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
    t.match((await migrate(rig, a, b, NAME)).code, 0, "with room it moves");
    await assertOneGuest(t, rig, { name: NAME, at: rig.b });
    await source.stop();
  });

  await t.test("what was prepared needs no more room: a disk that is full by then keeps nobody", async (t) => {
    const disk = await onSmallDisk(t, b, "source");
    const source = await startAgent(rig, rig.b, "source", ["--faults=hold-at=recording"]);
    const run = await startMigrate(rig, b, a, NAME);
    await fillAt(source, "recording", disk);
    requireMoved(await run.end());
    disk.free();
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
    await source.stop();
  });
  await startAgent(rig, rig.b, "source");
  await startAgent(rig, rig.a, "source");
  requireMoved(await migrate(rig, a, b, NAME));

  await t.test("the destination cannot write running: it refuses, and the guest goes on", async (t) => {
    const disk = await onSmallDisk(t, a, "destination");
    const destination = await startAgent(rig, rig.a, "destination", ["--faults=hold-at=loaded"]);
    const run = await startMigrate(rig, b, a, NAME);
    await fillAt(destination, "loaded", disk);
    const { code, answer } = await run.end();
    const error = { code: "peer-failed", message: /refused the guest/, guestNow: /runs at the source/ };
    t.match({ code, answer }, { code: 1, answer: { status: "failed", error } });
    disk.free();
    await assertOneGuest(t, rig, { name: NAME, at: rig.b });
    requireMoved(await migrate(rig, b, a, NAME));
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
    await destination.stop();
  });
});
