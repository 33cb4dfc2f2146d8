/** The promises about a world in which nothing is left to be done. */
import type { Manner, World } from "./world.ts";

const SOURCE_ENDS: readonly string[] = ["released", "kept", "stranded", "off"];
const DESTINATION_ENDS: readonly string[] = ["arrived", "lost", "discarded", "doubled", "off"];

/**
 * True when no agent has anything left to do. A source that keeps telling a host that is off what became of the guest
 * counts as done, since the source has the guest.
 */
export function isSettled({ source, sourceJournal, sourceQemu, destination, destinationQemu }: World): boolean {
  const tells = source === "withdrawing" && destination === "off";
  if (source === "released" && sourceQemu !== "gone") return false;
  if (destination === "discarded" && destinationQemu !== "gone") return false;
  if (source === "off" && sourceJournal === "granted" && destination === "off") return true;
  return (tells || SOURCE_ENDS.includes(source)) && DESTINATION_ENDS.includes(destination);
}

/** The promise that such a world breaks; undefined when it breaks none. */
export function brokenEnd(world: World, manner: Manner): string | undefined {
  const { source, sourceQemu, destination, destinationQemu, sourceStale, destinationStale } = world;
  const runs = sourceQemu === "running" || destinationQemu === "running" || world.sourceOther || world.destinationOther;
  const isTwice = sourceQemu === "running" && destinationQemu === "running";
  if (isTwice && !world.shown && source !== "off" && destination !== "off")
    return "two copies run, and no agent says so";
  if (manner === "paused" || runs) return undefined;
  if (sourceQemu === "retired" && sourceStale === "no")
    return "the migration is over, and the whole guest stands at the source";
  if (destinationQemu === "loaded" && !world.missing && destinationStale === "no")
    return "the migration is over, and the whole guest stands at the destination";
  return undefined;
}
