/**
 * Moves a guest under KVM, on machines on which /dev/kvm can be opened. Under KVM the guest's dirty log, its registers
 * and its clock are the kernel's. The guest's only program runs in real mode, so the test also works on machines whose
 * KVM boots no stock kernel.
 */
import { accessSync, constants } from "node:fs";
import t from "tap";
import { closeRig, processesOf } from "../support/after-migration.ts";
import { type HostAgents, startAgents } from "../support/agents.ts";
import { biosDefinition, type Pages, setSteps, twoSets } from "../support/bios-guest.ts";
import { readWatched, type Watched } from "../support/bios-watch.ts";
import { eventually } from "../support/bounded.ts";
import { migrate, requireMoved } from "../support/ferry-json.ts";
import { Rig } from "../support/rig.ts";

t.setTimeout(300_000);
const NAME = "kernel";
const COLD: Pages = { from: 0x10, to: 0x80 };
const HOT: Pages = { from: 0x80, to: 0x90 };
const WATCH = 0x90;
/** The program makes at least some rounds a second, so the guest dirties all of its pages all the time. */
const SETS = { cold: COLD, hot: HOT, hotTurns: 1, each: 1000, watch: WATCH };

const skip = ((): string | false => {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    return false;
  } catch {
    return "/dev/kvm cannot be opened";
  }
})();

/** Stops the guest, reads all that its program has written, and lets the guest go on. */
async function checkMemory(rig: Rig, { host }: HostAgents): Promise<{ most: number; counters: string } & Watched> {
  const qmp = await rig.observe(host, NAME);
  await qmp.execute("stop");
  const guest = { qmp, folder: rig.folder };
  const found = { ...(await setSteps(guest, SETS)), ...(await readWatched(guest, WATCH)) };
  await qmp.execute("cont");
  qmp.close();
  await qmp.closed;
  return found;
}

t.test("a guest under KVM moves by each strategy, with its clock and its devices", { skip }, async (t) => {
  const rig = await Rig.open();
  t.teardown(() => closeRig(rig));
  const definition = biosDefinition(rig, NAME, twoSets(SETS), "-accel kvm -cpu qemu64 -m 256");
  rig.writeDefinition(definition);
  await rig.startGuest(rig.a, definition);
  const [a, b] = await Promise.all([startAgents(rig, rig.a), startAgents(rig, rig.b)]);
  for (const [from, to, options] of [
    [a, b, ["--strategy", "stop-and-copy", "--verify"]],
    [b, a, ["--strategy", "precopy", "--verify"]],
    [a, b, ["--strategy", "postcopy"]],
    [b, a, ["--strategy", "hybrid", "--no-delta"]],
    [a, b, []],
  ] as const)
    await t.test(["the guest moves", ...options].join(" "), async (t) => {
      const { result } = requireMoved(await migrate(rig, from, to, NAME, options));
      const isVerified = options.some((one) => one === "--verify");
      t.equal(result.verified, isVerified);
      if (isVerified) t.ok(result.pagesCompared >= 65_536, `${result.pagesCompared} pages compared`);
      const { most, counters, rounds, ...devices } = await checkMemory(rig, to);
      t.same(devices, { clockWentBack: 0, cmosLost: 0, maskLost: 0 }, "the clock and the devices go on as they were");
      t.ok(most <= 1, `each page was written as often as the one before it, or once less: ${counters}`);
      const goesOn = async (): Promise<true | undefined> => {
        const later = await checkMemory(rig, to);
        return later.rounds !== rounds && later.counters !== counters ? true : undefined;
      };
      await eventually(goesOn, { timeoutMs: 60_000, what: "another round of the program" });
      t.same(processesOf(rig, from.host, NAME), [], "no QEMU of the guest is left at the other host");
    });
});
