/** The parts that the steps of the source agent have in common. */
import type { SourceQemu, SourceStateName } from "../../shared/protocol/source-states.ts";
import type { Rules } from "./rules.ts";
import type { Add, Manner, World } from "./world.ts";

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

/** The token of the one grant of the search. */
const TOKEN = "aa";

/**
 * Tells whether the source may run its guest, by its record and by what this life of the agent has heard of its grant.
 */
export function mayRunAtSource({ sourceJournal, because }: World, rules: Rules): boolean {
  const grant = { token: TOKEN, epoch: 1, paused: false };
  const kind = JOURNAL_KIND[sourceJournal];
  const isGivenBack = because === "refused" || because === "word";
  const record = { kind, guest: "web", destination: "b", sequence: 1, startedAtMs: 0, grant };
  return rules.sourceMayRun(record, isGivenBack ? TOKEN : undefined);
}

/** What a source agent finds that looks at the process of its record. */
export function lookAtSource({ sourceQemu, sourceOther }: World, rules: Rules): SourceQemu {
  if (!rules.looksAtTheProcess && sourceOther) return "active";
  switch (sourceQemu) {
    case "retired":
    case "moved":
      return "retired";
    case "gone":
      return "gone";
    // a guest that ran and is in `prelaunch` was reset after its migration, so nobody can tell what it is
    case "reset":
      return "unknown";
    default:
      return "active";
  }
}

/**
 * The change when the agent goes to another state. An operator's word counts only for the doubt in which it was said.
 */
export function toSource(world: World, source: SourceStateName, rules: Rules): Partial<World> {
  const stays = source === "inDoubt" && world.source === "inDoubt";
  return { source, ...(rules.freshWords && !stays ? { word: "none" } : {}) };
}

/**
 * The change when the source agent ends: QEMU's socket closes with it, nothing is left that could hear answers, and in
 * post-copy the page stream breaks.
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

/**
 * Adds the steps of a write: the record goes onto the disk, or it does not, or it does and is reported as failed.
 * @param written the further change when the write succeeds
 * @param failed the change when the write is reported as failed
 */
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
