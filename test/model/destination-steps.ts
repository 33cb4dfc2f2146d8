/** The steps of the destination agent: it loads the guest, waits for the grant, owns the guest and starts it. */
import type { DestinationQemu, DestinationStateName } from "../../shared/protocol/destination-states.ts";
import { isAtSource, own, seen, startDestination, unseeable } from "./copies.ts";
import {
  DESTINATION_KIND,
  lookAtDestination,
  mayRun,
  toDestination,
  withoutDestination,
  write,
} from "./destination-parts.ts";
import { discardingSteps, refusingSteps, withheldSteps } from "./refusal-steps.ts";
import type { Rules } from "./rules.ts";
import { type Add, isLiving, isUp, type Manner, type World } from "./world.ts";

export function destinationSteps(world: World, manner: Manner, rules: Rules, add: Add): void {
  const { destination, destinationQemu } = world;
  if (destination === "off") return;
  if (destination === "down" || destination === "adopting") {
    takeUp(world, rules, add);
    if (destination === "down") return;
  }
  add("destination agent crashes", withoutDestination(world), "fault");
  switch (destination) {
    case "loading":
      loadingSteps(world, rules, add);
      return;
    case "loaded":
      loadedSteps(world, rules, add);
      return;
    case "owning": {
      const refuses = toDestination(rules.afterDestination(destination, "fault"));
      if (destinationQemu === "gone") add("destination sees that its QEMU has ended", refuses);
      else if (rules.runningFirst)
        write(world, "running", add, "running", toDestination(rules.afterDestination(destination, "written")), refuses);
      else add("running not written, by rule", toDestination(rules.afterDestination(destination, "written")));
      return;
    }
    case "starting":
      startingSteps(world, manner, rules, add);
      return;
    case "pulling":
      streamSteps(world, rules, add);
      if (world.destinationJournal === "waiting" && !world.destinationDiskFull)
        add("running written late", { destinationJournal: "ungranted", sourceStale: seen(world.sourceStale) });
      if (world.missing && destinationQemu !== "gone") pullingSaid(world, rules, add);
      if (destinationQemu === "gone")
        add("destination sees that its QEMU has ended", toDestination(rules.afterDestination(destination, "gone")));
      else if (!world.missing) {
        const next = toDestination(rules.afterDestination(destination, "complete"));
        write(world, "arrived", add, "arrived", next, next);
      }
      return;
    case "refusing":
      refusingSteps(world, rules, add);
      return;
    case "withheld":
      withheldSteps(world, rules, add);
      return;
    case "discarding":
      discardingSteps(world, rules, add);
      return;
    case "discarded":
    case "arrived":
    case "lost":
    case "doubled":
      endedSteps(world, rules, add);
      return;
    default:
      return;
  }
}

/** The steps by which an agent that starts again takes the migration up. */
function takeUp(world: World, rules: Rules, add: Add): void {
  const { destinationJournal, destination } = world;
  if (destinationJournal === "none") {
    add("destination agent starts", toDestination("discarded"));
    return;
  }
  const take = (found: DestinationQemu): ReturnType<Rules["recoverDestination"]> =>
    rules.recoverDestination(DESTINATION_KIND[destinationJournal], found, destinationJournal === "heard");
  const untold = "destination agent starts and cannot tell what its QEMU does";
  const unseen = toDestination(rules.unknownIsNoEnd ? "adopting" : take("gone"));
  if (world.mute) {
    add("QEMU's main loop needs no page", { mute: false }, "chance");
    if (destination === "down") add(untold, unseen);
    return;
  }
  const found = take(lookAtDestination(world));
  const shown = found === "doubled" ? { shown: true } : {};
  // the guest was seen to run here, which the agent notes where the disk takes the record
  const record = destinationJournal === "waiting" ? ("unowned" as const) : ("arrived" as const);
  const isNoted = found === "arrived" && destinationJournal !== "unowned" && !world.destinationDiskFull;
  const noted = isNoted ? { destinationJournal: record } : {};
  add(destination === "down" ? "destination agent starts" : "destination can tell what its QEMU does", {
    ...toDestination(destination === "down" ? found : rules.afterDestination("adopting", found)),
    ...shown,
    ...noted,
  });
  if (destination === "down" && world.destinationQemu !== "gone") add(untold, unseen, "chance");
}

/**
 * The change when the destination hears a withdrawal. The loss of its copy is then excused if the source had a copy
 * when it said so, and that copy has ended since. A withdrawal that was said without a copy is a lie, and excuses
 * nothing.
 */
export const afterWithdrawal = (world: World): Partial<World> => ({
  lossExcused:
    world.lossExcused || (world.withdraw !== "empty" && world.withdraw !== "keptEmpty" && !isAtSource(world)),
});

function loadingSteps(world: World, rules: Rules, add: Add): void {
  const { destinationQemu, source, sourceQemu } = world;
  const next = toDestination(rules.afterDestination("loading", "fault"));
  const feeds = source === "switching" && (sourceQemu === "final" || sourceQemu === "retired");
  if (destinationQemu === "loading" && feeds) add("QEMU has loaded", { destinationQemu: "loaded" });
  if (isLiving(destinationQemu))
    add("destination sees it loaded", toDestination(rules.afterDestination("loading", "loaded")));
  if (destinationQemu === "loading") {
    add("QEMU does not load", { destinationQemu: "gone" }, "fault");
    if (!feeds && source !== "copying") add("destination gives up a guest that is not whole", next);
  }
  if (destinationQemu === "gone") add("destination sees that its QEMU has ended", next);
  if (world.withdraw !== "no") add("destination hears withdraw", { ...next, ...afterWithdrawal(world) });
}

function loadedSteps(world: World, rules: Rules, add: Add): void {
  const { destinationQemu } = world;
  const refuses = toDestination(rules.afterDestination("loaded", "withdrawn"));
  if (destinationQemu === "gone") {
    add("destination sees that its QEMU has ended", toDestination(rules.afterDestination("loaded", "gone")));
    return;
  }
  if (!world.loaded && world.source === "switching") add("loaded said", { loaded: true });
  if (world.grant && mayRun(world, rules))
    add("destination takes the grant", toDestination(rules.afterDestination("loaded", "granted")));
  if (world.withdraw !== "no") add("destination hears withdraw", { ...refuses, ...afterWithdrawal(world) });
  if (destinationQemu === "running" || destinationQemu === "moved") startedSteps(world, "loaded", rules, add);
  if (!rules.waitsLoaded) add("destination gives up", refuses);
}

/**
 * The steps by which the source hears that the guest pulls: as an answer to its question, and at the start of the guest
 * too.
 */
function pullingSaid(world: World, rules: Rules, add: Add): void {
  if (!isUp(world.source)) return;
  const standing = rules.standingOf("pulling", "grant", false);
  if (standing === "pulling" && !world.pulling) add("pulling said", { pulling: true });
  if (standing === "running" && world.running === "no") add("running said", { running: "true" });
}

/**
 * The steps by which the page stream is taken up again. That needs the monitor, which a QEMU whose main loop waits for
 * a page gives to no new client.
 */
function streamSteps(world: World, rules: Rules, add: Add): void {
  if (!world.missing || world.destinationQemu === "gone") return;
  if (world.cut && (!world.keeperGone || rules.hasSecondMonitor))
    add("the page stream is taken up again", { cut: false });
  if (world.keeperGone && !world.cut) add("another keeper takes its place", { keeperGone: false });
}

/**
 * The steps after somebody else has started a guest of which no refusal was said: the guest is here, and the record
 * says so.
 */
export function startedSteps(world: World, state: "loaded" | "refusing", rules: Rules, add: Add): void {
  const next = world.missing
    ? rules.afterDestination(state, "startedPulling")
    : rules.afterDestination(state, "started");
  const known = { ...toDestination(next), sourceStale: seen(world.sourceStale) };
  write(world, world.missing ? "ungranted" : "unowned", add, "what somebody has started", known, toDestination(next));
}

function startingSteps(world: World, manner: Manner, rules: Rules, add: Add): void {
  const { destinationQemu, destinationJournal, marked } = world;
  const go = (state: DestinationStateName): Partial<World> => toDestination(state);
  const isOnDisk = destinationJournal === "running" || !rules.runningFirst;
  if (destinationQemu === "gone") {
    add("destination sees that its QEMU has ended", go(rules.afterDestination("starting", "gone")));
    return;
  }
  if (marked && isOnDisk) add("mark taken out", { marked: false });
  // a QEMU that ran and was stopped again looks like one that was never started
  const waits = (destinationQemu === "loaded" || destinationQemu === "stopped") && !marked;
  const mayCont = rules.looksBeforeCont
    ? waits && isOnDisk
    : destinationQemu !== "running" && destinationQemu !== "loading";
  if (waits && isOnDisk && world.locked && manner !== "paused") {
    if (rules.declines) add("cont is refused", go(rules.afterDestination("starting", "declined")));
  } else if (mayCont && manner !== "paused") {
    const { to, broken } = startDestination(world, manner);
    add("cont at the destination", to, "normal", broken);
  }
  const ran = destinationQemu === "running" || destinationQemu === "stopped" || destinationQemu === "moved";
  if (manner === "postcopy") {
    streamSteps(world, rules, add);
    if (ran) add("runs and pulls", { ...go(rules.afterDestination("starting", "pulls")), pulling: isUp(world.source) });
  } else if (ran || (manner === "paused" && waits)) {
    const owned = manner === "paused" && waits ? own(world, "destination") : { to: {}, broken: undefined };
    const next = { ...go(rules.afterDestination("starting", "runs")), ...owned.to };
    write(world, "arrived", (name, change, kind) => add(name, change, kind, owned.broken), "arrived", next, next);
  }
}

/** The steps after the end of a migration: the agent answers each question, from its state or from its record. */
function endedSteps(world: World, rules: Rules, add: Add): void {
  const { destination, destinationQemu, refused } = world;
  const hasEnded = destinationQemu === "gone" && !world.destinationOther;
  if (
    (world.withdraw === "kept" || world.withdraw === "keptEmpty") &&
    hasEnded &&
    (destination === "lost" || destination === "arrived")
  ) {
    const next = toDestination("discarded");
    write(world, "heard", add, "refused, of a guest that has ended,", next, {});
  }
  if (!isUp(world.source)) return;
  const standing = rules.standingOf(
    destination as DestinationStateName,
    "grant",
    destinationQemu !== "gone" && !world.missing,
  );
  const isRefused = world.destinationJournal !== "none";
  if (world.grant && destination === "arrived" && world.destinationJournal === "unowned" && !hasEnded)
    write(world, "arrived", add, "arrived, which was granted,", {}, {});
  if (standing === "refused" && isRefused && !refused)
    add("refused said", { refused: true, sourceStale: unseeable(world.sourceStale) });
  if (standing !== "running" || world.running !== "no") return;
  add("running said", { running: hasEnded ? "false" : "true" });
}
