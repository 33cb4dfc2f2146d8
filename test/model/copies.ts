/**
 * Says what becomes of the copies of a guest when one copy is started, ended or given up, and which promise such a step
 * breaks.
 */
import type { Manner, Stale, World } from "./world.ts";

/**
 * What a step changes in the world, and the promise that it breaks, if any. A step may break two; only the first is
 * told.
 */
export interface Change {
  readonly to: Partial<World>;
  readonly broken?: string | undefined;
}

/** True when the source may start its copy without another word from the destination. */
const sourceHasTheRight = ({ source, sourceJournal, refused, destinationJournal, marked }: World): boolean =>
  source === "keeping" ||
  refused ||
  marked ||
  destinationJournal === "refused" ||
  destinationJournal === "heard" ||
  ["plan", "retiring", "untold", "kept"].includes(sourceJournal);

/** True when the destination may start its copy without another word from the source. */
const destinationHasTheRight = ({ destination, destinationJournal, grant }: World): boolean =>
  destinationJournal === "running" ||
  destinationJournal === "arrived" ||
  (destination !== "off" && destination !== "discarded" && grant && destinationJournal === "waiting") ||
  destination === "owning";

const more = (one: Stale, other: Stale): Stale => {
  const order: readonly Stale[] = ["no", "unseen", "excused", "known"];
  return order.indexOf(one) >= order.indexOf(other) ? one : other;
};

/**
 * The change when somebody other than the agents runs the guest at the source: the destination's copy is not the newest
 * any more.
 */
export const runsAtSource = (world: World): Partial<World> => ({
  destinationStale: more(world.destinationStale, destinationHasTheRight(world) ? "excused" : "unseen"),
});

/**
 * The change when somebody other than the agents runs the guest at the destination: the source's copy is not the newest
 * any more.
 */
export const runsAtDestination = (world: World): Partial<World> => ({
  sourceStale: more(world.sourceStale, sourceHasTheRight(world) ? "excused" : "unseen"),
});

/** The change when somebody else runs the guest where no agent looks: neither copy is the newest any more. */
export const runsElsewhere = (world: World): Partial<World> => ({
  ...runsAtSource(world),
  ...runsAtDestination(world),
});

/** What becomes of a copy's staleness when an agent has seen what somebody else did, which the agent may not forget. */
export const seen = (stale: Stale): Stale => (stale === "unseen" ? "known" : stale);

/**
 * What becomes of a copy's staleness when an agent says what allows the other side to start the copy, and could see
 * nothing of what somebody else did.
 */
export const unseeable = (stale: Stale): Stale => (stale === "unseen" ? "excused" : stale);

const isStale = (stale: Stale): boolean => stale === "unseen" || stale === "known";

/** The source agent starts its copy, or takes it back as it stands paused. */
export function startSource(world: World, manner: Manner): Change {
  const broken =
    manner === "paused"
      ? "a guest that was paused was started"
      : world.sourceOther
        ? "a second copy was started at the source's host"
        : staleStart(world, world.sourceStale, "source");
  return { to: { sourceQemu: "running", destinationStale: "known" }, broken };
}

/** The destination agent starts its copy. */
export function startDestination(world: World, manner: Manner): Change {
  const broken =
    manner === "paused"
      ? "a guest that was paused was started"
      : world.marked
        ? "a guest that was refused was started"
        : staleStart(world, world.destinationStale, "destination");
  return { to: { destinationQemu: "running", sourceStale: world.overruled ? "excused" : "known" }, broken };
}

/** A side has the guest from now on, without having started it. */
export const own = (world: World, side: "source" | "destination"): Change => {
  const stale = side === "source" ? world.sourceStale : world.destinationStale;
  const to = side === "source" ? { destinationStale: "known" as const } : { sourceStale: "known" as const };
  return { to, broken: staleStart(world, stale, side) };
};

function staleStart(world: World, stale: Stale, side: string): string | undefined {
  if (world.overruled || !isStale(stale)) return undefined;
  const other = side === "source" ? world.destinationQemu : world.sourceQemu;
  return other === "running"
    ? `two copies run: the agent started one at the ${side}`
    : `the agent started a copy at the ${side} that has run elsewhere since`;
}

const WHOLE_SOURCE: readonly World["sourceQemu"][] = ["running", "final", "paused", "retired"];

/** True when the guest is at the source, in any process. */
export const isAtSource = ({ sourceQemu, sourceOther }: World): boolean =>
  WHOLE_SOURCE.includes(sourceQemu) || sourceOther;

/** True when the destination's QEMU has all of the guest. */
const isWholeThere = ({ destinationQemu, missing }: World, loadedCounts = true): boolean =>
  !missing &&
  (destinationQemu === "running" || destinationQemu === "stopped" || (loadedCounts && destinationQemu === "loaded"));

/** The source agent ends its copy. */
export function quitSource(world: World): Change {
  const to = { sourceQemu: "gone" as const };
  if (world.lossExcused) return { to };
  if (world.sourceQemu === "running" && world.because !== "word")
    return { to, broken: "the agent ended a copy that ran, without a word" };
  const pulls = world.missing && (world.destinationQemu === "running" || world.destinationQemu === "stopped");
  if (pulls) return { to, broken: "the source let go of pages that the guest misses" };
  const isOnly = WHOLE_SOURCE.includes(world.sourceQemu) && world.sourceStale === "no" && !isWholeThere(world);
  return { to, broken: isOnly && !world.sourceOther ? "the only whole copy was ended at the source" : undefined };
}

/** The destination agent ends its copy. */
export function quitDestination(world: World): Change {
  const to = { destinationQemu: "gone" as const, marked: false };
  if (world.destinationQemu === "running") return { to, broken: "the agent ended a copy that ran, without a word" };
  const isWhole = world.destinationQemu === "loaded" && !world.missing;
  if (world.lossExcused || !isWhole || world.destinationStale !== "no") return { to };
  return { to, broken: isAtSource(world) ? undefined : "the only whole copy was ended at the destination" };
}
