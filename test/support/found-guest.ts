/** A guest whose QEMU an agent started: known by its monitor, and ended by it. */
import type { Rig, RigGuest, RigHost } from "./rig.ts";

export async function foundGuest(rig: Rig, host: RigHost, name: string): Promise<RigGuest> {
  const stop = async (): Promise<void> => {
    const monitor = await rig.observe(host, name);
    await monitor.execute("quit");
    await monitor.closed;
  };
  // of a process that this program did not start there is no handle
  const stand = await rig.spawn(host, "stands for a QEMU", ["sleep", "infinity"]);
  const inner = stand.stop.bind(stand);
  const process = Object.assign(stand, {
    stop: async () => {
      await stop().catch(() => undefined);
      return await inner();
    },
  });
  return { name, host, process, serial: rig.serial(host, name) };
}
