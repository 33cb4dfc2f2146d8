/**
 * The one error class for what callers handle. Every fault says what failed, where the guest is now and
 * what to do; `code` is stable, documented in docs/operations.md, and what tests match on.
 * Programming mistakes are not faults: those throw TypeError or RangeError.
 */

export type FaultCode =
  // what was asked for cannot be done
  | "invalid-argument"
  | "guest-unknown"
  | "guest-not-running"
  | "guest-busy"
  | "busy"
  | "migration-unknown"
  | "not-in-doubt"
  | "not-resolvable"
  | "needs-confirmation"
  | "too-late"
  | "not-supported"
  | "refused"
  // QEMU
  | "qmp-unreachable"
  | "qmp-forbidden"
  | "qmp-timeout"
  | "qmp-disconnected"
  | "qmp-command"
  | "qmp-protocol"
  | "qemu-start"
  | "qemu-failed"
  | "stream-invalid"
  | "stream-unsupported"
  // the peer
  | "peer-unreachable"
  | "peer-lost"
  | "peer-invalid"
  | "pages-lost"
  | "peer-failed"
  | "peer-untrusted"
  | "not-authorised"
  | "checksum-mismatch"
  // the migration
  | "cancelled"
  | "deadline"
  | "verify-mismatch"
  | "disks-changed"
  | "devices-changed"
  | "in-doubt"
  | "two-copies"
  | "stopping"
  | "interrupted"
  | "timeout"
  // this host
  | "state-directory"
  | "agent-running"
  | "configuration"
  | "internal";

export type Role = "source" | "destination" | "operator";

export interface FaultDetails {
  /** What the guest is doing now, one clause: "the guest runs at the source". */
  guestNow?: string;
  /** What to do, one sentence without a final period. */
  advice?: string;
  /** Where it happened, when that is not this process. */
  role?: Role;
  cause?: unknown;
  /** All reasons of a refusal. */
  refusals?: readonly Refusal[];
}

/**
 * Makes the stack of an error a text. Until it is read for the first time, V8 keeps the functions of the stack, and
 * with them all that they refer to: a fault that is kept, as the reason of a signal is, would keep the memory of a
 * migration.
 */
function releaseStack(error: Error): void {
  Reflect.get(error, "stack");
}

const OUT_OF_FILES =
  "This process may open no more files or sockets: raise its limit (LimitNOFILE= of its unit, ulimit -n), then try again";

/** True when a file or socket could not be opened because there are too many open ones, here or on the whole host. */
function isOutOfFiles(cause: unknown): boolean {
  for (let at = cause; at instanceof Error; at = at.cause)
    if ("code" in at && (at.code === "EMFILE" || at.code === "ENFILE")) return true;
  return false;
}

/** One reason why a migration cannot happen. */
export interface Refusal {
  readonly code: string;
  readonly message: string;
}

export class MigrationFault extends Error {
  readonly code: FaultCode;
  readonly guestNow: string | undefined;
  readonly advice: string | undefined;
  readonly role: Role | undefined;
  readonly refusals: readonly Refusal[];

  constructor(code: FaultCode, message: string, details: FaultDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "MigrationFault";
    this.code = code;
    this.guestNow = details.guestNow;
    this.advice = isOutOfFiles(details.cause) ? OUT_OF_FILES : details.advice;
    this.role = details.role;
    this.refusals = details.refusals ?? [];
    releaseStack(this);
    if (details.cause instanceof Error) releaseStack(details.cause);
  }

  /** The same fault with what only an outer layer knows; what is already said is kept. */
  with(details: FaultDetails): MigrationFault {
    const merged: FaultDetails = { cause: this.cause ?? details.cause, refusals: this.refusals };
    const guestNow = this.guestNow ?? details.guestNow;
    const advice = this.advice ?? details.advice;
    const role = this.role ?? details.role;
    if (guestNow !== undefined) merged.guestNow = guestNow;
    if (advice !== undefined) merged.advice = advice;
    if (role !== undefined) merged.role = role;
    return new MigrationFault(this.code, this.message, merged);
  }

  /** Any thrown value as a fault; unknown ones become `internal` and keep their cause. */
  static from(thrown: unknown, code: FaultCode = "internal"): MigrationFault {
    if (thrown instanceof MigrationFault) return thrown;
    const text = thrown instanceof Error ? thrown.message : String(thrown);
    return new MigrationFault(code, text, { cause: thrown });
  }
}
