/**
 * Fills the disk of a journal while a guest is handed over: an agent gives nothing away that it could not write down,
 * and the guest goes on at one of the hosts.
 */
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
/** Mount options of a disk that has room for a few records. */
const DISK = "size=64k,mode=700";

/**
 * Stops an agent, and gives its journal a small disk of its own.
 * @returns what fills the disk, and what makes room again
 */
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

/** Waits until the agent is held at a state, fills the disk, and lets the agent go on. */
async function fillAt(agent: RigProcess, state: string, disk: { fill: () => void }): Promise<void> {
  await agent.waitForOutput(new RegExp(`"held":"${state}"`), HELD);
  disk.fill();
  process.kill(agent.pid, "SIGUSR2");
}

const isRoot = process.getuid?.() === 0;

t.test("a guest moves only if its journals can be written", { skip: !isRoot && "needs root, to mount" }, async (t) => {
  const pair = await openPair(t, { guest: { name: NAME, workload: IDLE } });
  const { rig, a, b } = pair;

  await t.test("a source that cannot write granted keeps the guest, which goes on", async (t) => {
    const disk = await onSmallDisk(t, a, "source");
    // the agent is held before it prepares the record (Journal.prepare)
    const source = await startAgent(rig, rig.a, "source", ["--faults=hold-at=switching"]);
    const run = await startMigrate(rig, a, b, NAME);
    await fillAt(source, "switching", disk);
    const { code, answer } = await run.end();
    const error = { code: "state-directory", message: /ENOSPC|no space/, guestNow: /runs at the source/ };
    t.match({ code, answer }, { code: 1, answer: { status: "failed", error } });
    disk.free();
    await assertOneGuest(t, rig, { name: NAME, at: rig.a });
    t.match((await migrate(rig, a, b, NAME)).code, 0, "the guest moves once the disk has room");
    await assertOneGuest(t, rig, { name: NAME, at: rig.b });
    await source.stop();
  });

  await t.test("a record that was prepared needs no more room on a disk that is full by then", async (t) => {
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

  await t.test("a destination that cannot write running refuses the guest, which goes on at the source", async (t) => {
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
