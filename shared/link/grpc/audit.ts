/** One line in the log for each call of an operator that changes something: who asked for what. */

import type { LinkSecurity } from "../tls/security.ts";
import type { AnyCall } from "./caller.ts";
import { callerText } from "./caller.ts";

/** What was asked for. All texts have been bounded when the call was read. */
export interface Asked {
  /** A method of MigrationService. */
  readonly call: "Plan" | "Migrate" | "CancelMigration" | "ResolveMigration";
  readonly guest?: string;
  readonly to?: string;
  /** Of the migration, as it was given: an id or a guest's name. */
  readonly id?: string;
  readonly keep?: string;
  readonly confirmed?: boolean;
}

/** A call and who made it. */
export interface AuditLine extends Asked {
  /** "a unix socket, user 1000 (alice), process 4242", or "TLS 1.3, peer alice at 192.0.2.1:50123". */
  readonly caller: string;
}

export type Audit = (line: AuditLine) => void;

/** Writes the line before anything is done for the call, which may be refused afterwards. */
export type Auditing = (call: AnyCall, asked: Asked) => void;

export const auditing =
  (audit: Audit | undefined, security: LinkSecurity | undefined): Auditing =>
  (call, asked) =>
    audit?.({ ...asked, caller: callerText(call, security, "operators") });
