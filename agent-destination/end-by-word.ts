/**
 * Post-copy whose source is lost for good: the guest misses pages that nobody has. An operator ends what is left of it
 * here.
 */
import { MigrationFault } from "../shared/fault.ts";
import type { DestinationContext } from "./destination-context.ts";
import type { GuestProcess } from "./guest-process.ts";

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
