/**
 * Tests that the inspection finds what it looks for after each fault: two guests, wrong memory, files that were left,
 * or no guest.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { eventually } from "../support/bounded.ts";
import { guestFiles } from "../support/guest.ts";
import { findWorkloadPage, writeMemory } from "../support/guest-memory.ts";
import { FaultRig } from "./fault-rig.ts";
import { inspect } from "./inspect.ts";

t.setTimeout(180_000);
const SOON = { timeoutMs: 10_000 };

t.test("an inspection finds what is wrong with a guest", async (t) => {
  const on = await FaultRig.open();
  t.teardown(() => on.close());
  const { rig, name } = on;
  const quickly = { tidyMs: 200 };

  await t.test("an inspection finds nothing when one guest runs and nothing else is there", async (t) => {
    t.same(await inspect(on, quickly), { at: rig.a, violations: [] });
  });

  await t.test("an inspection finds the files that a migration has left", async (t) => {
    const path = join(rig.b.runtimeDirectory, "0123.incoming");
    writeFileSync(path, "");
    t.match((await inspect(on, quickly)).violations, [/left in the runtime directory of b: 0123.incoming/]);
    await on.reset();
  });

  await t.test("an inspection finds wrong words in the guest's memory", async (t) => {
    const monitor = await QmpClient.connect(join(rig.a.runtimeDirectory, guestFiles(name).qmp));
    const address = await findWorkloadPage(monitor, { memoryMiB: 256, folder: rig.folder });
    await writeMemory(monitor, address + 800, Buffer.from("wrong"), { folder: rig.folder });
    monitor.close();
    await rig.serial(rig.a, name).waitForBeat(({ errors }) => errors > 0, SOON);
    t.match((await inspect(on, quickly)).violations, [
      /on a the guest said: FERRY CORRUPT/,
      /words of its memory wrong/,
    ]);
    await on.reset();
    t.same((await inspect(on, quickly)).violations, [], "a guest from the snapshot is whole again");
  });

  await t.test("an inspection finds a second guest, by its monitor and by its heartbeats", async (t) => {
    const before = on.beats(rig.b).length;
    await on.startTwin();
    const seen = (): true | undefined => (on.beats(rig.b).length > before + 3 ? true : undefined);
    await eventually(seen, { ...SOON, what: "the twin's beats" });
    const { at, violations } = await inspect(on, quickly);
    t.equal(at, undefined);
    t.match(violations, [/QEMUs are left: 1 on a, 1 on b/, /ran on both hosts for/, /heartbeats on both hosts/]);
    await on.reset();
  });

  await t.test("an inspection finds that no guest is left after it was killed", async (t) => {
    const [qemu] = rig.qemus();
    process.kill(qemu!.pid, "SIGKILL");
    await eventually(() => (rig.qemus().length === 0 ? true : undefined), { ...SOON, what: "its end" });
    const { at, violations } = await inspect(on, quickly);
    t.equal(at, undefined);
    t.match(violations, [/left in the runtime directory of a/]);
    await on.revive();
    t.same(await inspect(on, quickly), { at: rig.a, violations: [] });
  });
});
