/** Finds out why a stream or a monitor of the source QEMU has ended, as far as QEMU or its last events tell. */
import { setImmediate } from "node:timers/promises";
import { MigrationFault } from "../../shared/fault.ts";
import { migrationPhase } from "../../shared/qemu/qmp/migration-status.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";

/** How long QEMU's answer is waited for, milliseconds. A QEMU that is about to end may not answer any more. */
const ANSWERS_WITHIN_MS = 1000;

/** QEMU's words about a stream that QEMU itself has shut: this agent's end of the stream was open. */
const SHUT_BY_ITSELF = /Channel error|Input\/output error/;

const byOthers = (message: string, cause: MigrationFault): MigrationFault =>
  new MigrationFault("qemu-failed", message, {
    cause,
    advice: "Ask who uses the monitor of the guest's QEMU; then migrate again",
  });

/**
 * Asks QEMU why its migration has ended, since the stream that has ended carries no reason. Call only where this agent
 * has not cancelled the migration itself.
 * @param fault what the agent saw
 * @returns the reason where QEMU tells one, else `fault`
 */
export async function whyQemuFailed(qmp: QmpClient, fault: MigrationFault): Promise<MigrationFault> {
  // a command that is written to a monitor which QEMU has closed makes the kernel drop what was not read from it yet,
  // and the reason for QEMU's end may be among that. After two turns of the event loop all that had come has been read
  for (let turn = 0; turn < 2; turn++) await setImmediate();
  if (qmp.announcedEnd !== undefined) return qmp.announcedEnd;
  try {
    const { status, "error-desc": words } = await qmp.execute("query-migrate", undefined, {
      timeoutMs: ANSWERS_WITHIN_MS,
    });
    if (qmp.announcedEnd !== undefined) return qmp.announcedEnd;
    const phase = migrationPhase(status);
    if (phase === "cancelled" || status === "cancelling")
      return byOthers("Somebody else has cancelled QEMU's migration (migrate_cancel)", fault);
    // QEMU shuts its socket before it notes that it was cancelled (migration_cancel), and may take that for a failure
    if (phase === "failed" && SHUT_BY_ITSELF.test(words ?? ""))
      return byOthers(`QEMU has shut its stream (${words}), as it does when another tool says migrate_cancel`, fault);
    if (words === undefined || fault.message.includes(words)) return fault;
    return new MigrationFault(fault.code, `${fault.message}: ${words}`, { cause: fault });
  } catch (thrown) {
    const why = MigrationFault.from(thrown);
    // a QEMU that ends stops its migration first, then answers nothing any more, and may take a while to end
    if (qmp.announcedEnd !== undefined) return qmp.announcedEnd;
    return qmp.isOpen || why.code === "qmp-disconnected" ? fault : why;
  }
}
