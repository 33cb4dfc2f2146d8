/** The steps of a source agent that has granted the guest: it asks, hears, serves pages, and tells. */
import type { Ask } from "../../shared/protocol/destination-states.ts";
import { isAtSource, seen, unseeable } from "./copies.ts";
import type { Rules } from "./rules.ts";
import { lookAtSource, toSource, write } from "./source-parts.ts";
import { type Add, isLiving, type Manner, type World } from "./world.ts";

/** What the destination answers if it is up; `none` where nobody answers. */
export function standingThere(
  world: World,
  rules: Rules,
  ask: Ask = "standing",
): ReturnType<Rules["standingOf"]> | "none" {
  const { destination, destinationJournal, destinationQemu } = world;
  if (destination === "down" || destination === "off") return "none";
  if (destination === "discarded" && destinationJournal === "none") return "unknown";
  if (destination === "adopting" && (destinationJournal === "running" || destinationJournal === "ungranted"))
    return "starting";
  return rules.standingOf(destination, ask, destinationQemu !== "gone" && !world.missing);
}

/** True when an agent that looks can see that somebody runs the guest at the source. */
const showsActivity = (world: World): boolean =>
  world.sourceOther || ["running", "final", "paused"].includes(world.sourceQemu);

/** The steps by which the source asks for an answer: with its question it repeats the grant, or withdraws it. */
function askSteps(world: World, manner: Manner, rules: Rules, add: Add): void {
  const found = rules.looksBeforeGrant ? lookAtSource(world, rules) : "retired";
  const another = rules.looksBeforeGrant && world.sourceOther;
  const withdrawn = rules.notesWithdrawal && (world.sourceJournal === "withdrawn" || world.because === "withdrew");
  const isPostcopy = manner === "postcopy";
  const ask = rules.askInDoubt(found, another, withdrawn, isPostcopy);
  if (ask === "grant" && !world.grant) {
    const stale = showsActivity(world) ? world.destinationStale : unseeable(world.destinationStale);
    add("grant said", { grant: true, destinationStale: stale });
  }
  if (ask !== "grant" && !world.grant && rules.askInDoubt("unknown", false, withdrawn, isPostcopy) === "grant")
    add("grant said by an agent that cannot tell what its QEMU does", { grant: true }, "chance");
  if (ask === "withdraw" && world.source === "inDoubt") {
    const known = { destinationStale: seen(world.destinationStale), because: "withdrew" as const };
    // a QEMU that has ended cannot run the guest later, so there is nothing to note
    if (found === "gone" && !another) {
      if (world.withdraw === "no") add("source says withdraw in doubt, of lost pages", { withdraw: "empty" });
    } else if (!rules.notesWithdrawal) {
      if (world.withdraw === "no")
        add("source says withdraw in doubt", { ...known, because: "none", withdraw: "true" });
    } else if (!withdrawn) write(world, "withdrawn", add, "withdrawn", known, { because: "withdrew" });
    else if (world.withdraw === "no")
      add("source says withdraw in doubt", { withdraw: isAtSource(world) ? "true" : "empty" });
  } else if (ask === "withdraw") {
    const doubts = toSource(world, rules.afterSource("granting", "fault"), rules);
    const known = { ...doubts, destinationStale: seen(world.destinationStale) };
    if (!rules.notesWithdrawal || (found === "gone" && !another)) add("source sees that the guest runs here", doubts);
    else
      write(world, "withdrawn", add, "withdrawn", { ...known, because: "withdrew" }, { ...known, because: "withdrew" });
  }
}

/**
 * The promise that breaks if the source believes what it hears: a `running` that is not true makes the source let go of
 * the only copy.
 */
const takenForTrue = (world: World): string | undefined =>
  world.running === "false" && !world.pulling && isAtSource(world) && !world.lossExcused
    ? "the source was told that a guest runs whose QEMU has ended"
    : undefined;

export function grantingSteps(world: World, manner: Manner, rules: Rules, add: Add): void {
  askSteps(world, manner, rules, add);
  const next = rules.afterSource("granting", manner === "postcopy" ? "pulling" : "running");
  if (world.running !== "no") add("source hears running", toSource(world, next, rules), "normal", takenForTrue(world));
  if (world.pulling) add("source hears pulling", toSource(world, rules.afterSource("granting", "pulling"), rules));
  if (world.refused)
    add("source hears refused", {
      ...toSource(world, rules.afterSource("granting", "refused"), rules),
      because: "refused",
    });
  add("no answer", toSource(world, rules.afterSource("granting", "fault"), rules));
}

export function doubtSteps(world: World, manner: Manner, rules: Rules, add: Add): void {
  const go = (state: Parameters<typeof toSource>[1]): Partial<World> => toSource(world, state, rules);
  askSteps(world, manner, rules, add);
  const found = lookAtSource(world, rules);
  const here = rules.showsDoubled && (found === "active" || world.sourceOther);
  if (world.running !== "no" || world.pulling) {
    const next = world.pulling && world.running === "no" ? "pulling" : manner === "postcopy" ? "pulling" : "running";
    if (here)
      add("source hears that the guest runs there too", {
        ...go(rules.afterSource("inDoubt", "doubled")),
        shown: true,
        destinationStale: seen(world.destinationStale),
      });
    else add(`source hears ${next}`, go(rules.afterSource("inDoubt", next)), "normal", takenForTrue(world));
  }
  if (world.refused)
    add("source hears refused", { ...go(rules.afterSource("inDoubt", "refused")), because: "refused" });
  if (world.word === "source")
    add("source takes the word for itself", { ...go(rules.afterSource("inDoubt", "keepSource")), because: "word" });
  // the word counts as things were when it was said: the source asks again for a guest that was said to be pulling, if
  // it has ended since
  if (world.word === "pulling" && here)
    add("source sees that the guest runs here too", { ...go(rules.afterSource("inDoubt", "doubled")), shown: true });
  else if (world.word === "pulling")
    add("source takes the word for the destination", go(rules.afterSource("inDoubt", "keepPulling")));
  if (world.word === "destination")
    add("source takes the word for the destination", {
      ...go(rules.afterSource("inDoubt", "keepDestination")),
      because: here ? "word" : world.because,
    });
}

export function servingSteps(world: World, _manner: Manner, rules: Rules, add: Add): void {
  const { destination, sourceQemu, missing } = world;
  const go = (state: Parameters<typeof toSource>[1]): Partial<World> => toSource(world, state, rules);
  const standing = standingThere(world, rules);
  const pulls = (destination === "pulling" || destination === "starting") && isLiving(world.destinationQemu);
  if (missing && pulls && !world.cut && sourceQemu === "retired") add("pages served", { missing: false });
  if (world.running !== "no")
    add("source hears complete", go(rules.afterSource("serving", "served")), "normal", takenForTrue(world));
  if (standing === "lost") add("source hears lost", go(rules.afterSource("serving", "lost")));
  if (rules.doubtsSilence && (standing === "none" || standing === "waiting"))
    add("no contact", go(rules.afterSource("serving", "silent")));
  if (world.refused)
    add("source hears refused", { ...go(rules.afterSource("serving", "refused")), because: "refused" });
  if (missing && lookAtSource(world, rules) === "gone" && pulls)
    write(world, "released", add, "pages are lost, and released", go(rules.afterSource("serving", "broken")), {
      ...go(rules.afterSource("serving", "broken")),
    });
}

export function withdrawingSteps(world: World, rules: Rules, add: Add): void {
  const standing = standingThere(world, rules, "kept");
  const keeps = isAtSource(world) || world.destinationStale !== "no" || world.lossExcused ? "kept" : "keptEmpty";
  if (world.withdraw !== keeps && world.sourceJournal === "untold")
    add("source says that it keeps the guest", { withdraw: keeps });
  else if (world.withdraw === "no") add("source says withdraw", { withdraw: "true" });
  const next = toSource(world, rules.afterSource("withdrawing", "heard"), rules);
  // this must be the answer to this very withdrawal: a refusal that came before says nothing of what the destination
  // has heard
  if (standing === "lost" || standing === "unknown" || standing === "refused")
    write(world, "kept", add, "kept, which was heard,", next, next);
  if (world.running !== "no" || world.pulling)
    add("source hears that the guest runs there too", {
      ...toSource(world, rules.afterSource("withdrawing", "doubled"), rules),
      shown: true,
    });
}

export function orphanedSteps(world: World, rules: Rules, add: Add): void {
  const go = (state: Parameters<typeof toSource>[1]): Partial<World> => toSource(world, state, rules);
  if (world.running !== "no" || world.pulling)
    add("source hears running", go(rules.afterSource("orphaned", "running")), "normal", takenForTrue(world));
  // the source only asks, and for a withheld copy it then hears no refusal
  if (standingThere(world, rules) === "refused") {
    const next = go(rules.afterSource("orphaned", "refused"));
    write(world, "kept", add, "kept", next, next);
  }
}

export function doubledSteps(world: World, rules: Rules, add: Add): void {
  const go = (state: Parameters<typeof toSource>[1]): Partial<World> => toSource(world, state, rules);
  const standing = standingThere(world, rules);
  const runsHere = lookAtSource(world, rules) === "active" || world.sourceOther;
  const hasEndedThere = world.refused || standing === "lost" || standing === "refused" || standing === "unknown";
  const isGranted = world.sourceJournal === "granted" || world.sourceJournal === "withdrawn";
  if (!runsHere && (standing === "running" || (hasEndedThere && world.sourceJournal === "released")))
    add("source sees that its own has ended", go(rules.afterSource("doubled", "sourceEnded")));
  else if (!runsHere && hasEndedThere && isGranted)
    add("source sees that both have ended", go(rules.afterSource("doubled", "bothEnded")));
  else if (hasEndedThere) {
    const next = go(rules.afterSource("doubled", "destinationEnded"));
    write(world, "untold", add, "kept, as the other has ended,", next, next);
  }
}
