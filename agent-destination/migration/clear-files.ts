/**
 * Removes the files that a guest's QEMU leaves when it has ended. The sockets of a migration are not among them
 * (phases/discard.ts).
 */
import type { DestinationConfig } from "../../shared/runtime/config/config.ts";
import { removeLeft } from "../../shared/runtime/files/remove-left.ts";
import { loadGuest } from "../../shared/runtime/guest/guest-definition.ts";
import { qemuLogPath, removeLog } from "../../shared/runtime/guest/guest-log.ts";
import { isListenedAt } from "../../shared/runtime/guest/guest-socket.ts";

/**
 * Removes the socket of the monitor and the log of a QEMU that has ended. Nothing is removed where a process listens at
 * that socket, which is then another QEMU's, or where the definition cannot be read.
 * @param name of the guest
 */
export async function clearFiles(name: string, config: DestinationConfig): Promise<void> {
  const definition = await loadGuest(name, config).catch(() => undefined);
  if (definition === undefined || (await isListenedAt(definition.qmp))) return;
  await removeLeft(definition.qmp);
  await removeLog(qemuLogPath(name, definition.directory));
}
