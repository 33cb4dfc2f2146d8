/**
 * Ends migrations while the guest is copied, by another tool at the guest's QEMU or by the guest itself. The error says
 * what was done, and where the guest is.
 */
import t, { type Test } from "tap";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { assertOneGuest, processesOf } from "../support/after-migration.ts";
import { eventually } from "../support/bounded.ts";
import { type Ended, startMigrate } from "../support/ferry-json.ts";
import { openPair, type Pair } from "../support/pair.ts";

t.setTimeout(300_000);
const NAME = "shared";
/** Options with which the copying lasts until the other tool has done its work. */
const SLOW = ["--bandwidth", "40Mbit"];

const WORKLOAD = { regionMiB: 64, rate: 50e6, mode: "scramble" } as const;

const pair = (t: Test): Promise<Pair> => openPair(t, { guest: { name: NAME, workload: WORKLOAD } });

/** Lets another client act while pages are on their way. @returns how `ferry migrate` ended */
async function disturbed({ rig, a, b }: Pair, act: (qmp: QmpClient) => Promise<unknown>): Promise<Ended> {
  const run = await startMigrate(rig, a, b, NAME, SLOW);
  await run.copying();
  const qmp = await rig.observe(rig.a, NAME);
  await act(qmp).finally(() => qmp.close());
  const { code, answer } = await run.end();
  t.equal(code, 1);
  return answer;
}

t.test("the error of a migration that somebody cancels at QEMU says so, and the guest runs on", async (t) => {
  const found = await pair(t);
  const { error } = await disturbed(found, (qmp) => qmp.execute("migrate_cancel"));
  t.match(error, {
    // QEMU itself does not always know that its migration was cancelled
    message: /Somebody else has cancelled QEMU's migration|as it does when another tool says migrate_cancel/,
    guestNow: "the guest runs at the source",
    advice: /Ask who uses the monitor/,
  });
  await assertOneGuest(t, found.rig, { name: NAME, at: found.rig.a });
});

for (const [what, command, message] of [
  ["told to quit", "quit", /Somebody has told the guest's QEMU to quit/],
  [
    "reset, without a reboot",
    "system_reset",
    /Somebody has reset the guest, and its QEMU has ended instead \(-no-reboot\)/,
  ],
] as const)
  t.test(`a guest whose QEMU is ${what} is gone, and the error says why`, async (t) => {
    const found = await pair(t);
    const { error } = await disturbed(found, (qmp) => qmp.execute(command as "quit").catch(() => undefined));
    t.match(error, { message, guestNow: /the guest is gone: its QEMU at the source has ended/ });
    await untilNoneIsLeft(found);
  });

async function untilNoneIsLeft({ rig }: Pair): Promise<void> {
  const areNone = (): true | undefined =>
    [rig.a, rig.b].every((host) => processesOf(rig, host, NAME).length === 0) ? true : undefined;
  await eventually(areNone, { timeoutMs: 30_000, what: "the end of the destination's QEMU" });
}

for (const [what, whenSqueezed, message] of [
  ["powers itself off", "poweroff", /The guest has powered itself off, and its QEMU has ended/],
  ["resets itself", "reboot", /The guest has reset itself, and its QEMU has ended instead \(-no-reboot\)/],
] as const)
  t.test(`a guest that ${what} while it is copied is gone, and the error says why`, async (t) => {
    const workload = { ...WORKLOAD, drivers: ["virtio_balloon"], whenSqueezed } as const;
    const extra = ["-device", "virtio-balloon-pci,id=balloon"];
    const found = await openPair(t, { guest: { name: NAME, workload, extra } });
    const { error } = await disturbed(found, (qmp) => qmp.execute("balloon", { value: 224 << 20 }));
    t.match(error, {
      code: "guest-not-running",
      message,
      guestNow: /the guest is gone: its QEMU at the source has ended/,
      advice: /Start the guest again where it is to run/,
    });
    await untilNoneIsLeft(found);
  });
