import { MigrationFault } from "../../shared/fault.ts";

/** What a source that keeps to the protocol does not send. */
export const invalid = (what: string): MigrationFault =>
  new MigrationFault("peer-invalid", `The source sent ${what}`, { role: "source" });
