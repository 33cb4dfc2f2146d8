/** The parts that the steps of the destination agent have in common. */
import type { DestinationQemu, DestinationStateName } from "../../shared/protocol/destination-states.ts";
import type { Rules } from "./rules.ts";
import type { Add, World } from "./world.ts";

/** The kind of the record that the destination's journal holds. */
export const DESTINATION_KIND = {
  waiting: "waiting",
  running: "running",
  ungranted: "running",
  arrived: "arrived",
  unowned: "arrived",
  refused: "refused",
  heard: "refused",
} as const;

/** What a destination agent that starts again finds out about the process that its record names. */
export function lookAtDestination({ destinationQemu, marked, missing }: World): DestinationQemu {
  switch (destinationQemu) {
    // a QEMU that ran and was stopped again looks as it did before it ran
    case "loaded":
    case "stopped":
      return marked ? "marked" : "loaded";
    case "running":
      return marked ? "started" : missing ? "pulling" : "running";
    case "moved":
      return marked ? "started" : "moved";
    default:
      return destinationQemu;
  }
}

export const toDestination = (destination: DestinationStateName): Partial<World> => ({ destination });

/**
 * The change when the destination agent ends: nothing is left that could hear what was said to it, and in post-copy its
 * page stream breaks.
 */
export function withoutDestination({ missing, destinationQemu, keeperGone }: World): Partial<World> {
  const pulls = missing && destinationQemu === "running";
  return { destination: "down", grant: false, withdraw: "no", cut: pulls, mute: pulls && keeperGone };
}

/**
 * Adds the steps of a write: the record goes onto the disk, or it does not, or it does and is reported as failed.
 * @param written the further change when the write succeeds
 * @param failed the change when the write is reported as failed
 */
export function write(
  world: World,
  record: World["destinationJournal"],
  add: Add,
  name: string,
  written: Partial<World>,
  failed: Partial<World>,
): void {
  if (world.destinationDiskFull) {
    add(`${name} not written, the destination's disk is full`, failed);
    return;
  }
  add(`${name} written`, { ...written, destinationJournal: record });
  add(`${name} written, and reported as failed`, { ...failed, destinationJournal: record }, "fault");
}

/** True when the record allows the guest to be started on this grant. */
export function mayRun({ destinationJournal }: World, rules: Rules): boolean {
  if (destinationJournal === "none") return false;
  const kind = DESTINATION_KIND[destinationJournal];
  const grant = { token: "aa", epoch: 1, paused: false };
  return rules.destinationMayRun({ kind, guest: "web", source: "a", sequence: 1, startedAtMs: 0, grant }, grant, "aa");
}
