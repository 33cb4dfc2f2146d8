/** What a script learns from `ferry`'s exit code (DESIGN 7). */
import type { MigrationFault } from "../shared/fault.ts";
import type { MigrationStatus } from "../shared/protocol/report.ts";

export const EXIT = {
  /** The guest was moved; or what was asked for was done. */
  ok: 0,
  /** It was not done; a guest that was to be moved runs at the source. */
  failed: 1,
  usage: 2,
  /** The guest runs at the source, as the operator wished. */
  cancelled: 3,
  /** The guest is paused until `ferry resolve`, or nobody can say where it runs. */
  inDoubt: 4,
  /** The guest runs at both hosts: one copy is to be stopped at once. */
  doubled: 5,
  /** `ferry may-start` could not look. A supervisor takes it for a failure, where 1 is an answer. */
  unknown: 255,
  /** The operator left with Ctrl-C; the migration goes on. As shells report SIGINT. */
  detached: 130,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

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
