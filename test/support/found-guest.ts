/**
 * Finds a guest whose QEMU an agent has started among the rig's processes, so that a test can use and end it like a
 * guest that the rig has started.
 */
import { eventually } from "./bounded.ts";
import type { Rig, RigGuest, RigHost } from "./rig.ts";

const ENDS_WITHIN_MS = 20_000;

export async function foundGuest(rig: Rig, host: RigHost, name: string): Promise<RigGuest> {
  const mine = `${host.runtimeDirectory}/${name}.`;
  const pids = rig
    .qemus()
    .filter(({ command }) => command.includes(mine))
    .map(({ pid }) => pid);
  const ended = () => (pids.every((pid) => !rig.qemus().some((one) => one.pid === pid)) ? true : undefined);
  // this program has no handle of a process that it did not start, so a process of its own stands for the QEMU
  const stand = await rig.spawn(host, "stands for a QEMU", ["sleep", "infinity"]);
  const inner = stand.stop.bind(stand);
  const process_ = Object.assign(stand, {
    stop: async () => {
      for (const pid of pids) endProcess(pid);
      await eventually(ended, { timeoutMs: ENDS_WITHIN_MS, what: `the end of ${name}'s QEMU on ${host.name}` });
      return await inner();
    },
  });
  return { name, host, process: process_, serial: rig.serial(host, name) };
}

/** Asks a QEMU to end, which it then does by itself. */
function endProcess(pid: number): void {
  try {
    process.kill(pid, "SIGTERM");
  } catch {
    // the process has ended already
  }
}
