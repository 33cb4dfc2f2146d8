/** The exit codes of `ferry`, for scripts (docs/operations.md, "Exit codes"). */
import type { MigrationFault } from "../shared/fault.ts";
import type { MigrationStatus } from "../shared/protocol/report.ts";

export const EXIT = {
  /** The guest was moved, or the command has done what was asked. */
  ok: 0,
  /**
   * The command has not done what was asked. A guest that was to be moved is at the source, unless the message says
   * otherwise.
   */
  failed: 1,
  usage: 2,
  /** The migration was cancelled, as the operator wished, and the guest is at the source. */
  cancelled: 3,
  /** The guest is paused until the operator says `ferry resolve`, or it is unknown where the guest runs. */
  inDoubt: 4,
  /** The guest runs at both hosts: one copy is to be stopped at once. */
  doubled: 5,
  /** `ferry may-start` could not find out. A supervisor takes this code for a failure, while 1 is an answer. */
  unknown: 255,
  /** The operator left with Ctrl-C, and the migration goes on. Shells report SIGINT by the same code. */
  detached: 130,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** The exit code of a command that ends while a migration has this status. */
export function exitCodeOf(status: MigrationStatus): ExitCode {
  switch (status) {
    case "moved":
      return EXIT.ok;
    case "cancelled":
      return EXIT.cancelled;
    case "inDoubt":
      return EXIT.inDoubt;
    case "doubled":
      return EXIT.doubled;
    case "failed":
    case "preparing":
    case "copying":
    case "switching":
    case "granting":
    case "undoing":
    case "serving":
      return EXIT.failed;
  }
}

export function exitCodeOfFault(fault: MigrationFault): ExitCode {
  switch (fault.code) {
    case "invalid-argument":
      return EXIT.usage;
    case "cancelled":
      return EXIT.cancelled;
    case "in-doubt":
      return EXIT.inDoubt;
    case "two-copies":
      return EXIT.doubled;
    default:
      return EXIT.failed;
  }
}
