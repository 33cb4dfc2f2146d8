/** Checks which process answers at the monitor of a guest: this agent's QEMU, or one that somebody else has started. */
import { MigrationFault } from "../../shared/fault.ts";
import type { QemuProcess } from "../../shared/protocol/ownership.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { GuestDefinition } from "../../shared/runtime/guest/guest-definition.ts";
import { anotherAnswers, isOf, processBehind } from "../../shared/runtime/guest/monitor-process.ts";

/**
 * How long a QEMU that misses pages may take to answer a question, milliseconds. QEMU does not answer while its main
 * loop waits for a page.
 */
export const STUCK_MS = 1000;

/**
 * Checks that this QEMU answers at the monitor, and not another process. Another process that answers there was started
 * by somebody else, and the agent sends it no command. A QEMU that misses pages passes the check as well when it does
 * not answer within STUCK_MS.
 * @throws MigrationFault `qemu-failed` when another process answers; another fault when this agent cannot find out
 *   which process answers
 */
export async function checkProcess(
  qmp: QmpClient,
  definition: GuestDefinition,
  { process, missesPages }: { readonly process: QemuProcess; readonly missesPages: boolean },
): Promise<void> {
  const options = missesPages ? { timeoutMs: STUCK_MS } : {};
  const answers = await processBehind(qmp, definition.qmp, options).catch((thrown: unknown) => {
    // the main loop of this QEMU may wait for a page; a QEMU that somebody else has started would answer
    if (missesPages && MigrationFault.from(thrown).code === "qmp-timeout") return undefined;
    throw thrown;
  });
  if (answers === undefined || (await isOf(answers.pid, process))) return;
  throw anotherAnswers(answers, definition.qmp, process);
}
