/**
 * Starts a guest that QEMU has left standing. QEMU 10.0.0 to 10.0.4 and 10.1.0 leave a guest so when their stream
 * breaks between the stop for post-copy and the end of the package: the status of the migration stays `device`, `cont`
 * is refused, and `migrate_cancel` does nothing (migration/migration.c postcopy_start sets FAILED from another state;
 * corrected in 10.0.5 and 10.1.1).
 *
 * Detaching from the gdb stub starts the CPUs whatever the status of a migration says (gdbstub/system.c gdb_continue).
 * Such a QEMU takes no other migration after that, so the agents do not do this by themselves
 * (docs/design/post-copy.md#a-guest-that-qemu-leaves-standing).
 */
import { rm } from "node:fs/promises";
import type { Socket } from "node:net";
import { MigrationFault } from "../../shared/fault.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { connectToQemu } from "../../shared/runtime/guest/guest-socket.ts";

/** How long the guest may take to start, milliseconds. */
const TIMEOUT_MS = 5000;
/** What is written to the gdb stub: an acknowledgement, and the command detach with its checksum. */
const DETACH = "+$D#44";

/**
 * Tells whether a guest was left standing. The answer is also true for moments of any migration; the guest stays so
 * only where nothing is at the other end of QEMU's stream.
 */
export async function isStanding(monitor: QmpClient): Promise<boolean> {
  const { status } = await monitor.execute("query-migrate");
  return status === "device" && (await monitor.execute("query-status")).status === "finish-migrate";
}

/**
 * Starts a guest that was left standing. The caller must know that the guest was granted to no destination.
 * @param path the path at which QEMU makes a socket for the time of this call
 * @throws MigrationFault the faults of QmpClient.execute(), and `qmp-timeout` when the guest does not start
 */
export async function startStandingGuest(monitor: QmpClient, path: string): Promise<void> {
  await humanCommand(monitor, `gdbserver unix:${path},server=on,wait=off`);
  try {
    const resumed = monitor.waitFor("RESUME", undefined, { timeoutMs: TIMEOUT_MS });
    const stub = await connected(path);
    try {
      stub.write(DETACH);
      await resumed;
    } finally {
      stub.destroy();
    }
  } finally {
    await humanCommand(monitor, "gdbserver none");
    await rm(path, { force: true });
  }
}

async function humanCommand(monitor: QmpClient, line: string): Promise<void> {
  await monitor.execute("human-monitor-command", { "command-line": line });
}

function connected(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectToQemu(path);
    socket.once("connect", () => {
      socket.on("error", () => undefined);
      resolve(socket);
    });
    socket.once("error", (cause) =>
      reject(new MigrationFault("qmp-disconnected", `QEMU's gdb stub at ${path} failed: ${cause.message}`, { cause })),
    );
  });
}
