/** Writes one line to the log for each call of an operator that changes something: who asked for what. */

import type { LinkSecurity } from "../tls/security.ts";
import type { AnyCall } from "./caller.ts";
import { callerText } from "./caller.ts";

/** What an operator asked for. All texts were bounded when the call was read. */
interface Asked {
  /** A method of MigrationService. */
  readonly call: "Plan" | "Migrate" | "CancelMigration" | "ResolveMigration";
  readonly guest?: string;
  readonly to?: string;
  /** The id of the migration, as the operator gave it. */
  readonly id?: string;
  readonly keep?: string;
  readonly confirmed?: boolean;
}

/** A call and who made it. */
export interface AuditLine extends Asked {
  /** For example "a unix socket, user 1000 (alice), process 4242", or "TLS 1.3, peer alice at 192.0.2.1:50123". */
  readonly caller: string;
}

/** Writes a line to the log. */
export type Audit = (line: AuditLine) => void;

/** Writes the line of a call before anything is done for the call, which may still be refused afterwards. */
export type Auditing = (call: AnyCall, asked: Asked) => void;

/** Makes the function that handlers call. Without `audit` that function writes nothing. */
export const auditing =
  (audit: Audit | undefined, security: LinkSecurity | undefined): Auditing =>
  (call, asked) =>
    audit?.({ ...asked, caller: callerText(call, security, "operators") });
