/** What the states of the destination agent have in common. */
import type { DestinationQemu, DestinationStateName } from "../../shared/protocol/destination-states.ts";
import type { Rules } from "./rules.ts";
import type { Add, World } from "./world.ts";

export const DESTINATION_KIND = {
  waiting: "waiting",
  running: "running",
  ungranted: "running",
  arrived: "arrived",
  unowned: "arrived",
  refused: "refused",
  heard: "refused",
} as const;

/** What an agent that starts again finds of the process of its record. */
export function lookAtDestination({ destinationQemu, marked, missing }: World): DestinationQemu {
  switch (destinationQemu) {
    // one that was stopped again looks as it did before
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

/** What is left of the destination when its agent has ended: what was said to it has nobody to hear it. */
export function withoutDestination({ missing, destinationQemu, keeperGone }: World): Partial<World> {
  const pulls = missing && destinationQemu === "running";
  return { destination: "down", grant: false, withdraw: "no", cut: pulls, mute: pulls && keeperGone };
}

/** A record goes onto the disk: or does not, or does and is reported as failed. */
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

/** Does the record allow the guest to be started on this grant? */
export function mayRun({ destinationJournal }: World, rules: Rules): boolean {
  if (destinationJournal === "none") return false;
  const kind = DESTINATION_KIND[destinationJournal];
  const grant = { token: "aa", epoch: 1, paused: false };
  return rules.destinationMayRun({ kind, guest: "web", source: "a", sequence: 1, startedAtMs: 0, grant }, grant, "aa");
}
