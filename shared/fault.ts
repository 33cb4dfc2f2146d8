/**
 * The one class of errors that callers handle. Every fault says what failed and, where that is known, what the guest is
 * doing now and what the reader can do. Its `code` is stable and documented in docs/operations.md, and tests match on
 * it.
 *
 * A mistake in the program is not a fault: it throws a TypeError or a RangeError.
 */

export type FaultCode =
  // the request cannot be carried out
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
  // QEMU, its monitor and its stream
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
  // the peer and what it sent
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
  /** What the guest is doing now, as one clause: "the guest runs at the source". */
  guestNow?: string;
  /** What the reader can do, as one sentence without a final period. */
  advice?: string;
  /** The side on which the fault happened, when that is not this process. */
  role?: Role;
  cause?: unknown;
  /** All reasons for which a migration was refused. */
  refusals?: readonly Refusal[];
}

/**
 * Reads the stack of an error once, which turns it into a text. Until that first read V8 keeps the functions on the
 * stack and everything that they refer to. A fault can live long, for example as the reason of an AbortSignal, and
 * would then keep the memory of a migration alive.
 */
function releaseStack(error: Error): void {
  Reflect.get(error, "stack");
}

const OUT_OF_FILES =
  "This process may open no more files or sockets: raise its limit (LimitNOFILE= of its unit, ulimit -n), then try again";

/** True when a file or socket could not be opened because too many are open, in this process or on the whole host. */
function isOutOfFiles(cause: unknown): boolean {
  for (let at = cause; at instanceof Error; at = at.cause)
    if ("code" in at && (at.code === "EMFILE" || at.code === "ENFILE")) return true;
  return false;
}

/**
 * The most characters of one text of a fault, and of all its refusals together. Peers and QEMUs contribute to these
 * texts. An agent keeps the faults of its last 100 migrations, and all of them have to fit into one answer to an
 * operator who lists the migrations.
 */
const TEXT_MAX = 6000;

/** The most characters of the message of one refusal. */
const REASON_MAX = 2000;
/**
 * How many characters each refusal counts for beside those of its message. Without this amount, a long list of refusals
 * with empty messages would not be cut.
 */
const REFUSAL_CHARACTERS = 60;

const cut = (text: string, most = TEXT_MAX): string => (text.length <= most ? text : `${text.slice(0, most - 1)}…`);

/** Cuts a list of refusals that is too long. A last refusal then says how many were left out. */
function bounded(refusals: readonly Refusal[]): readonly Refusal[] {
  let left = TEXT_MAX;
  const kept = refusals
    .map(({ code, message }) => ({ code, message: cut(message, REASON_MAX) }))
    .filter(({ message }) => {
      left -= message.length + REFUSAL_CHARACTERS;
      return left >= 0;
    });
  if (kept.length === refusals.length) return kept;
  return [
    ...kept,
    { code: "more", message: `${refusals.length - kept.length} more reasons are left out, since the list is too long` },
  ];
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
    super(cut(message), details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "MigrationFault";
    this.code = code;
    this.guestNow = details.guestNow && cut(details.guestNow);
    this.advice = isOutOfFiles(details.cause) ? OUT_OF_FILES : details.advice && cut(details.advice);
    this.role = details.role;
    this.refusals = bounded(details.refusals ?? []);
    releaseStack(this);
    if (details.cause instanceof Error) releaseStack(details.cause);
  }

  /**
   * Returns the same fault with details that only an outer layer knows. A detail that this fault has already is kept.
   * The fault's refusals never change.
   */
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

  /** Returns a thrown fault as it is. Any other thrown value becomes the cause of a new fault with `code`. */
  static from(thrown: unknown, code: FaultCode = "internal"): MigrationFault {
    if (thrown instanceof MigrationFault) return thrown;
    const text = thrown instanceof Error ? thrown.message : String(thrown);
    return new MigrationFault(code, text, { cause: thrown });
  }
}
