/**
 * The steps of operators at either agent. A right word is said by an operator who has looked, and comes where nothing
 * else helps. A wrong word is taken from the run's budget, and excuses only what it claims.
 */
import { isAtSource } from "./copies.ts";
import { toDestination, write } from "./destination-parts.ts";
import { standingThere } from "./doubt-steps.ts";
import type { Rules } from "./rules.ts";
import { toSource } from "./source-parts.ts";
import { type Add, isUp, type Manner, type World } from "./world.ts";

export function operatorSteps(world: World, manner: Manner, rules: Rules, add: Add): void {
  words(world, manner, rules, false, add);
  // the link may be cut while both agents are up: nothing may wait for a word that is said then
  words(world, manner, rules, true, (name, change, kind = "normal", broken) =>
    add(`${name}, behind a link that is cut`, change, kind === "normal" ? "chance" : kind, broken),
  );
  if (world.destination === "doubled" && (world.destinationQemu === "running" || world.destinationQemu === "stopped"))
    add("operator ends the destination's copy by hand, of two", {
      destinationQemu: "gone",
      marked: false,
      lossExcused: true,
    });
}

function words(world: World, manner: Manner, rules: Rules, isCut: boolean, add: Add): void {
  const standing = isCut ? "none" : standingThere(world, rules);
  if (isCut && standingThere(world, rules) === "none") return;
  if (world.source === "inDoubt" && world.word === "none") wordsInDoubt(world, manner, rules, standing, add);
  if (world.source === "doubled") wordsOfTwo(world, rules, standing, add);
  if (world.source === "orphaned") wordsOfOrphan(world, rules, standing, add);
  if (rules.destinationTakesWords && (isCut || !isInContact(world))) wordsAtDestination(world, rules, add);
  // this word is taken although the source is in contact, since the source is told only that nothing is decided and
  // cannot settle the migration
  if (rules.endsUnseen && !isCut && world.mute && world.destination === "adopting")
    add("operator ends the QEMU that answers nobody", { destinationQemu: "gone", marked: false, lossExcused: true });
}

type Heard = ReturnType<typeof standingThere>;

function wordsInDoubt(world: World, manner: Manner, rules: Rules, standing: Heard, add: Add): void {
  const isConfirmed = standing === "none" || standing === "lost" || standing === "unknown";
  const runsThere =
    manner === "paused" ? world.sourceStale === "known" : world.destinationQemu === "running" || world.destinationOther;
  if (isConfirmed) {
    const isBehindCut = standing === "none";
    // an operator who goes to the destination can see that its QEMU has ended
    const isRight = world.destinationQemu === "gone" && !world.destinationOther;
    // until the destination has noted it, only the word keeps a supervisor from starting a guest that had arrived there
    const overruled = world.overruled || (isRight && world.destinationJournal === "arrived");
    const excused = { sourceStale: "excused" as const, word: "source" as const, overruled };
    if (isRight) add("operator keeps the source", excused);
    else if (world.destination === "lost" && !isBehindCut)
      add("operator keeps the source, since the destination says that it has ended", { word: "source" });
    else add("operator keeps the source, and has not looked", { ...excused, overruled: true }, "wrong");
    const pulls = manner === "postcopy" && standing !== "lost";
    const word = pulls ? ("pulling" as const) : ("destination" as const);
    const here = { word, lossExcused: true };
    if (runsThere || standing === "lost") add("operator keeps the destination", standing === "lost" ? here : { word });
    else add("operator keeps the destination, and has not looked", here, "wrong");
    return;
  }
  // a destination that is about to start the guest is waited for, since its QEMU may end before the start
  const isProof = standing === "running" || standing === "pulling";
  if (isProof || ((standing === "waiting" || standing === "starting") && !rules.wordNeedsProof))
    add("operator keeps the destination, which says so", { word: manner === "postcopy" ? "pulling" : "destination" });
  if (world.withdraw === "no" && standing === "waiting")
    add("operator keeps the source, which is asked for", { withdraw: "true" });
}

/**
 * The words of an operator when the guest runs twice. They say which copy is to end: the copy at the destination only
 * where that host is off, or by hand.
 */
function wordsOfTwo(world: World, rules: Rules, standing: Heard, add: Add): void {
  const ends = toSource(world, rules.afterSource("doubled", "keepDestination"), rules);
  add("operator keeps the destination, of two", { ...ends, because: "word", lossExcused: true });
  if (standing !== "none") return;
  const keeps = {
    ...toSource(world, rules.afterSource("doubled", "keepSource"), rules),
    sourceStale: "excused" as const,
    overruled: world.overruled || world.destinationJournal === "arrived" || world.destinationQemu !== "gone",
    ...(world.sourceDiskFull ? {} : { sourceJournal: "untold" as const }),
  };
  if (world.destinationQemu === "gone") add("operator keeps the source, of two", keeps);
  else add("operator keeps the source, of two, and has not looked", keeps, "wrong");
}

/**
 * The word of an operator when nothing is left at the source and the destination does not come back: the guest belongs
 * to the source all the same.
 */
function wordsOfOrphan(world: World, rules: Rules, standing: Heard, add: Add): void {
  if (standing !== "none" && standing !== "lost" && standing !== "unknown") return;
  const next = {
    ...toSource(world, rules.afterSource("orphaned", "keepSource"), rules),
    sourceStale: "excused" as const,
  };
  const gives = {
    lossExcused: true,
    overruled: world.overruled || world.destinationQemu !== "gone" || world.destinationJournal === "arrived",
  };
  const kind = world.destinationQemu === "gone" ? "normal" : "wrong";
  if (!world.sourceDiskFull)
    add("operator keeps the guest for the source", { ...next, ...gives, sourceJournal: "untold" }, kind);
}

/** True when the source is in contact and settles the migration itself: the word is then to be said at the source. */
const isInContact = ({ source }: World): boolean =>
  isUp(source) && source !== "released" && source !== "kept" && source !== "stranded" && source !== "orphaned";

/** The words of an operator at the destination. */
function wordsAtDestination(world: World, rules: Rules, add: Add): void {
  const { destination, destinationQemu } = world;
  if (world.missing && (destination === "starting" || destination === "pulling")) {
    const areLost = ["gone", "moved", "reset"].includes(world.sourceQemu) || world.source === "off";
    const ends = { destinationQemu: "gone" as const, marked: false, lossExcused: true };
    add("operator ends the guest that misses pages", ends, areLost ? "normal" : "wrong");
  }
  if (destination !== "loaded" && destination !== "withheld") return;
  if (destinationQemu !== "loaded" && destinationQemu !== "stopped") return;
  const owns = toDestination(
    destination === "loaded"
      ? rules.afterDestination(destination, "granted")
      : rules.afterDestination(destination, "claimed"),
  );
  // no guest can run at the source any more, or its host is off, and the operator answers for it that it stays off
  const isKept = world.sourceJournal === "untold" || world.sourceJournal === "kept";
  if (world.missing) {
    // no word of an operator brings the missing pages
  } else if (!isAtSource(world) && world.sourceQemu !== "moved" && (!isKept || world.source === "off"))
    add("operator claims the guest for the destination", {
      ...owns,
      destinationStale: "excused",
      overruled: world.overruled || isKept,
    });
  else
    add(
      "operator claims the guest for the destination, and has not looked",
      { ...owns, destinationStale: "excused", overruled: true },
      "wrong",
    );
  const gives = { lossExcused: true };
  const kind =
    isAtSource(world) || isKept || world.source === "released" || world.missing || world.locked ? "normal" : "wrong";
  if (destination === "loaded")
    add(
      "operator gives the destination's copy up",
      { ...toDestination(rules.afterDestination("loaded", "withdrawn")), ...gives },
      kind,
    );
  else {
    const heard = { ...toDestination(rules.afterDestination("withheld", "heard")), ...gives };
    write(
      world,
      "heard",
      (name, change, fault) => add(`operator gives the destination's copy up: ${name}`, change, fault ?? kind),
      "refused and heard",
      heard,
      heard,
    );
  }
}
