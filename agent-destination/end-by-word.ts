/**
 * Copies that an operator ends here: a guest of post-copy whose source is lost for good misses pages that nobody has,
 * and a QEMU that an agent which started again cannot look at answers nobody.
 */
import { setTimeout as delay } from "node:timers/promises";
import { MigrationFault } from "../shared/fault.ts";
import type { QemuProcess } from "../shared/protocol/ownership.ts";
import { hasEnded } from "../shared/runtime/process-identity.ts";
import type { DestinationContext } from "./destination-context.ts";
import { DIES_WITHIN_MS, type GuestProcess } from "./guest-process.ts";
import { clearFiles } from "./recovery.ts";
import { kill } from "./started-command.ts";

const LOOK_MS = 50;

/**
 * Runs a phase in which pages may be missing, and ends the guest's QEMU when an operator says so meanwhile. The phase
 * finds that out as of any QEMU that ends.
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
 * Kills a QEMU whose monitor cannot be had, waits for its end, and removes what it leaves.
 * @param isUnseen asked in the moment before the kill: the monitor may have become free meanwhile
 * @throws MigrationFault `not-in-doubt` where it has; `qemu-failed` where the process does not end
 */
export async function endUnseen(
  qemu: QemuProcess,
  isUnseen: () => boolean,
  { id, guest, config, log }: Pick<DestinationContext, "id" | "guest" | "config" | "log">,
): Promise<void> {
  if (await hasEnded(qemu)) return;
  if (!isUnseen())
    throw new MigrationFault("not-in-doubt", `${id} has been taken up meanwhile: this word was not acted upon`, {
      advice: "See how it stands with: ferry list",
    });
  log.warn({ pid: qemu.pid }, "the operator ends the guest, whose QEMU cannot be looked at");
  kill(qemu.pid);
  for (const deadline = performance.now() + DIES_WITHIN_MS; !(await hasEnded(qemu)); await delay(LOOK_MS))
    if (performance.now() > deadline)
      throw new MigrationFault("qemu-failed", `Process ${qemu.pid} does not end, though it was killed`, {
        advice: "The kernel holds it, as it does while a disk hangs: see its state in /proc, and repeat this",
      });
  await clearFiles(guest, config);
}
