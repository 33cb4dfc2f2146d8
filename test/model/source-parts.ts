/** What the states of the source agent have in common. */
import type { SourceQemu, SourceStateName } from "../../shared/protocol/source-states.ts";
import type { Rules } from "./rules.ts";
import type { Add, Manner, World } from "./world.ts";

/** What an agent finds that looks at the process of its record. */
/** The kind of the record that the source's journal holds. */
export const JOURNAL_KIND = {
  plan: "plan",
  retiring: "plan",
  granted: "granted",
  withdrawn: "granted",
  released: "released",
  untold: "kept",
  kept: "kept",
} as const;

export function lookAtSource({ sourceQemu, sourceOther }: World, rules: Rules): SourceQemu {
  if (!rules.looksAtTheProcess && sourceOther) return "active";
  switch (sourceQemu) {
    case "retired":
    case "moved":
      return "retired";
    case "gone":
      return "gone";
    // a guest that ran and is `prelaunch` was reset behind its migration: nobody can tell what it is
    case "reset":
      return "unknown";
    default:
      return "active";
  }
}

/** The agent goes to another state; a word is of the doubt that it was said in. */
export function toSource(world: World, source: SourceStateName, rules: Rules): Partial<World> {
  const stays = source === "inDoubt" && world.source === "inDoubt";
  return { source, ...(rules.freshWords && !stays ? { word: "none" } : {}) };
}

/**
 * What is left of the source when its agent has ended: QEMU's socket closes with it, and answers have nobody to hear
 * them.
 */
export const withoutSource = (world: World, manner: Manner): Partial<World> => ({
  source: "down",
  because: "none",
  word: "none",
  loaded: false,
  running: "no",
  pulling: false,
  refused: false,
  cut: world.cut || (world.missing && world.destinationQemu === "running"),
  ...(world.sourceQemu !== "final"
    ? {}
    : manner === "paused"
      ? { sourceQemu: "paused" }
      : { sourceQemu: "running", destinationStale: "known" }),
});

/** A record goes onto the disk: or does not, or does and is reported as failed. */
export function write(
  world: World,
  record: World["sourceJournal"],
  add: Add,
  name: string,
  written: Partial<World>,
  failed: Partial<World>,
): void {
  if (world.sourceDiskFull) {
    add(`${name} not written, the source's disk is full`, failed);
    return;
  }
  add(`${name} written`, { ...written, sourceJournal: record });
  add(`${name} written, and reported as failed`, { ...failed, sourceJournal: record }, "fault");
}
