/**
 * What each MigrationStatus of QEMU means to the agents (qapi/migration.json of QEMU 8.1 to 11.1). Later versions add
 * values: 10.2 `postcopy-device`, 11.0 `failing`. A value that is not listed here belongs to a migration that is under
 * way and will come to a value that is listed. Nothing is begun or given up because of such a value: a caller that
 * waits for an end waits on, within the same limit of time as for any other value of a migration under way.
 */

/** The kinds of migration status that the agents tell apart. */
export type MigrationPhase =
  /** No migration is under way, and none has begun since QEMU was started. */
  | "none"
  /** Pages are sent before the guest runs at the destination. */
  | "copying"
  /** The package of post-copy is written: pages are sent to the destination, which runs the guest or is about to. */
  | "serving"
  /** Post-copy has lost its stream and waits for a new one. */
  | "parked"
  /** The migration is about to end without success. */
  | "ending"
  | "completed"
  | "failed"
  | "cancelled"
  | "unknown";

const PHASES: ReadonlyMap<string, MigrationPhase> = new Map(
  Object.entries<MigrationPhase>({
    none: "none",
    setup: "copying",
    "wait-unplug": "copying",
    active: "copying",
    "pre-switchover": "copying",
    // also the status of a post-copy that is just about to write its package
    device: "copying",
    colo: "copying",
    // this status, new in 10.2, lasts until the destination has loaded the package and QEMU's migration thread has
    // taken note of that
    "postcopy-device": "serving",
    "postcopy-active": "serving",
    "postcopy-paused": "parked",
    "postcopy-recover-setup": "serving",
    "postcopy-recover": "serving",
    cancelling: "ending",
    // this status, new in 11.0, lasts until QEMU has cleaned up
    failing: "ending",
    completed: "completed",
    failed: "failed",
    cancelled: "cancelled",
  }),
);

/** @param status the status that `query-migrate` tells; undefined where QEMU knows of no migration */
export function migrationPhase(status: string | undefined): MigrationPhase {
  return status === undefined ? "none" : (PHASES.get(status) ?? "unknown");
}

/** Tells whether QEMU accepts a new migration, and settings for one: no migration is under way. */
export function isSettled(status: string | undefined): boolean {
  return ["none", "completed", "failed", "cancelled"].includes(migrationPhase(status));
}

/**
 * Tells whether a source QEMU has its part in post-copy: it sends pages, or has sent the last one. True for an unknown
 * status as well, since it is none of the statuses in which QEMU has failed, was cancelled or has lost its stream.
 */
export function servesPostcopy(status: string | undefined): boolean {
  return ["serving", "completed", "unknown"].includes(migrationPhase(status));
}
