/**
 * Ends the QEMU of a guest at this host by an operator's word, because no agent can finish the migration. In post-copy
 * the source may be lost for good, and the guest then misses pages that nobody has. Or an agent that has started again
 * finds a QEMU that does not answer any client.
 */
import { MigrationFault } from "../../shared/fault.ts";
import type { QemuProcess } from "../../shared/protocol/ownership.ts";
import { killProcess } from "../../shared/qemu/inspect/guest-unit.ts";
import { orLate } from "../../shared/runtime/deferred.ts";
import { hasEnded } from "../../shared/runtime/host/process-identity.ts";
import type { GuestProcess } from "../guest/guest-process.ts";
import { DIES_WITHIN_MS, endOf } from "../guest/process-end.ts";
import { clearFiles } from "./clear-files.ts";
import type { DestinationContext } from "./destination-context.ts";

/**
 * Runs a phase in which pages may be missing, and ends the guest's QEMU when an operator says so meanwhile. The phase
 * notices the end of this QEMU as it notices the end of any QEMU.
 */
export async function endableByWord<T>(
  guest: GuestProcess,
  cx: DestinationContext,
  phase: () => Promise<T>,
): Promise<T> {
  void cx.claims.ask().then(async () => {
    cx.log.warn({ qemu: await guest.lastWords() }, "the operator ends the guest, whose missing pages are lost");
    await guest.discard().catch((thrown: unknown) => cx.onNews(MigrationFault.from(thrown).message));
  });
  return await phase().finally(() => cx.claims.forget());
}

/**
 * Kills a QEMU whose monitor does not answer, waits for its end, and removes the files that it leaves.
 * @param isUnseen tells whether the monitor still does not answer; it is called just before the kill
 * @throws MigrationFault `not-in-doubt` where the monitor answers by now; `qemu-failed` where the process does not end
 */
export async function endUnseen(
  qemu: QemuProcess,
  isUnseen: () => boolean,
  { id, guest, config, log, clock }: Pick<DestinationContext, "id" | "guest" | "config" | "log" | "clock">,
): Promise<void> {
  if (await hasEnded(qemu)) return;
  if (!isUnseen())
    throw new MigrationFault("not-in-doubt", `The QEMU of ${id} answers the agent again, so nothing was ended`, {
      advice: "See with ferry list what the migration does now",
    });
  log.warn({ pid: qemu.pid }, "the operator ends the guest's QEMU, which does not answer the agent");
  await killProcess(qemu.pid);
  if (!(await orLate(endOf(qemu, clock), DIES_WITHIN_MS, clock)))
    throw new MigrationFault("qemu-failed", `The guest's QEMU, process ${qemu.pid}, was killed and has not ended`, {
      advice: `The kernel holds it, as while a disk hangs: see State in /proc/${qemu.pid}/status, then repeat this`,
    });
  await clearFiles(guest, config);
}
