/** A guest whose QEMU an agent started: found among the rig's processes, and ended as one of its own. */
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
  // of a process that this program did not start there is no handle
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

/** QEMU ends by itself when it is asked so. */
function endProcess(pid: number): void {
  try {
    process.kill(pid, "SIGTERM");
  } catch {
    // it has ended
  }
}
