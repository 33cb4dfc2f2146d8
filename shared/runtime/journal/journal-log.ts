/** Logs what is wrong with an agent's journal. */
import { MigrationFault } from "../../fault.ts";
import type { Logger } from "../log/log.ts";

/** Waits for a write that nothing depends on, and logs its fault where the disk does not take it. Never rejects. */
export const orLogged = (written: Promise<void>, log: Logger): Promise<void> =>
  written.catch((thrown: unknown) =>
    log.warn({ fault: MigrationFault.from(thrown).message }, "a record could not be written to the journal"),
  );

/** Logs each file of the journal that is no record. */
export function logUnreadable(faults: readonly MigrationFault[], log: Logger): void {
  for (const { message, advice } of faults)
    log.error({ fault: message, advice }, "a file in stateDirectory is no record; what it belongs to is not known");
}
