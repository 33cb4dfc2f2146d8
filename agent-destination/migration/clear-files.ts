/** The files that a QEMU leaves behind which has ended. */
import { rm } from "node:fs/promises";
import type { DestinationConfig } from "../../shared/runtime/config/config.ts";
import { isListenedAt } from "../../shared/runtime/files/listened-at.ts";
import { loadGuest } from "../../shared/runtime/guest/guest-definition.ts";
import { qemuLogPath, removeLog } from "../../shared/runtime/guest/guest-log.ts";

/** Removes the socket and the log of a QEMU that has ended, unless another one listens at that socket. */
export async function clearFiles(name: string, config: DestinationConfig): Promise<void> {
  const definition = await loadGuest(name, config).catch(() => undefined);
  if (definition === undefined || (await isListenedAt(definition.qmp))) return;
  await rm(definition.qmp, { force: true });
  await removeLog(qemuLogPath(name, definition.directory));
}
