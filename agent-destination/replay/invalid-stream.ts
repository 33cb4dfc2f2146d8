/** The fault of a transfer stream that is not what the protocol allows. */
import { MigrationFault } from "../../shared/fault.ts";

/**
 * Makes the fault.
 * @param what the source has sent, in words that follow "The source sent"
 */
export const invalid = (what: string): MigrationFault =>
  new MigrationFault("peer-invalid", `The source sent ${what}`, { role: "source" });
