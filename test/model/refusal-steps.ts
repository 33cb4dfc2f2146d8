/**
 * The steps of a destination agent that refuses: it makes the refusal durable, then says it until it is heard, and then
 * ends the copy.
 */
import { quitDestination, seen, unseeable } from "./copies.ts";
import { toDestination, write } from "./destination-parts.ts";
import { afterWithdrawal, startedSteps } from "./destination-steps.ts";
import type { Rules } from "./rules.ts";
import { type Add, isUp, type World } from "./world.ts";

const hasCopy = ({ destinationQemu }: World): boolean => destinationQemu !== "gone" && destinationQemu !== "loading";

/** The step by which the source hears the refusal. From then on it can start its own copy. */
function refusedSaid(world: World, rules: Rules, add: Add): void {
  if (world.refused || !isUp(world.source)) return;
  const ran = world.destinationQemu === "running" || world.destinationQemu === "moved";
  if (ran && rules.looksBeforeRefusal) return;
  const broken = ran ? "the destination refused a guest that it could see running" : undefined;
  add("refused said", { refused: true, sourceStale: unseeable(world.sourceStale) }, "normal", broken);
}

export function refusingSteps(world: World, rules: Rules, add: Add): void {
  const withheld = toDestination(rules.afterDestination("refusing", "written"));
  if (!hasCopy(world)) {
    add("destination has nothing to be kept", toDestination(rules.afterDestination("refusing", "empty")));
    return;
  }
  if ((world.destinationQemu === "running" || world.destinationQemu === "moved") && rules.looksBeforeRefusal) {
    startedSteps(world, "refusing", rules, add);
    return;
  }
  const next = rules.keepsUntilHeard ? withheld : toDestination(rules.afterDestination("refusing", "empty"));
  if (!rules.refusedFirst) {
    add("refused not written, by rule", next);
    return;
  }
  if (!world.destinationDiskFull) add("refused written", { ...next, destinationJournal: "refused" });
  else if (rules.marks) add("the mark is put into QEMU", { ...next, marked: true });
  else add("refused not written, the destination's disk is full", next);
}

export function withheldSteps(world: World, rules: Rules, add: Add): void {
  const { destinationQemu, destinationJournal } = world;
  const go = (outcome: "heard" | "gone" | "started"): Partial<World> =>
    toDestination(rules.afterDestination("withheld", outcome));
  if (destinationQemu === "gone") {
    add("destination sees that its QEMU has ended", go("gone"));
    return;
  }
  if (destinationQemu === "running" || destinationQemu === "moved")
    add("destination sees the guest started", { ...go("started"), sourceStale: seen(world.sourceStale), shown: true });
  else if (world.withdraw !== "no") {
    const heard = { ...go("heard"), ...afterWithdrawal(world) };
    write(world, "heard", add, "refused and heard", heard, heard);
  }
  refusedSaid(world, rules, add);
  if (destinationJournal !== "refused" && !world.destinationDiskFull)
    add("refused written late", { destinationJournal: "refused" });
}

export function discardingSteps(world: World, rules: Rules, add: Add): void {
  const { destinationQemu, destinationJournal } = world;
  const isRefusal = destinationJournal !== "waiting" || world.marked || destinationQemu === "gone";
  if (destinationQemu !== "gone") {
    refusedSaid(world, rules, add);
    if ((destinationQemu === "running" || destinationQemu === "moved") && rules.showsDoubled) {
      const two = toDestination(rules.afterDestination("discarding", "started"));
      add("destination sees the guest started", { ...two, sourceStale: seen(world.sourceStale), shown: true });
      return;
    }
    const { to, broken } = quitDestination(world);
    add("destination QEMU ended by the agent", to, "normal", broken);
    return;
  }
  if (isRefusal) refusedSaid(world, rules, add);
  add("discarded", toDestination(rules.afterDestination("discarding", "done")));
}
