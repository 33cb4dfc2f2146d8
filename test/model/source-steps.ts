/** The steps of the source agent until it has granted the guest, and when it lets the guest go or takes it back. */
import type { SourceQemu, SourceStateName } from "../../shared/protocol/source-states.ts";
import { quitSource, seen } from "./copies.ts";
import {
  doubledSteps,
  doubtSteps,
  grantingSteps,
  orphanedSteps,
  servingSteps,
  withdrawingSteps,
} from "./doubt-steps.ts";
import { keepingSteps } from "./keeping-steps.ts";
import type { Rules } from "./rules.ts";
import { JOURNAL_KIND, lookAtSource, toSource, withoutSource, write } from "./source-parts.ts";
import type { Add, Manner, World } from "./world.ts";

export function sourceSteps(world: World, manner: Manner, rules: Rules, add: Add): void {
  const { source, sourceJournal } = world;
  if (source === "off") return;
  if (source === "down") {
    const take = (qemu: SourceQemu): SourceStateName =>
      rules.recoverSource(JOURNAL_KIND[sourceJournal], qemu, sourceJournal === "untold");
    const found = lookAtSource(world, rules);
    add("source agent starts", { source: take(found) });
    if (take("unknown") !== take(found) && found !== "gone")
      add("source agent starts and cannot tell what its QEMU does", { source: take("unknown") }, "chance");
    return;
  }
  add("source agent crashes", withoutSource(world, manner), "fault");
  switch (source) {
    case "copying":
    case "switching":
    case "retiring":
    case "recording":
      stepsBeforeTheGrant(world, source, manner, rules, add);
      return;
    case "granting":
      grantingSteps(world, manner, rules, add);
      return;
    case "inDoubt":
      doubtSteps(world, manner, rules, add);
      return;
    case "serving":
      servingSteps(world, manner, rules, add);
      return;
    case "keeping":
      keepingSteps(world, manner, rules, add);
      return;
    case "withdrawing":
      withdrawingSteps(world, rules, add);
      return;
    case "orphaned":
      orphanedSteps(world, rules, add);
      return;
    case "doubled":
      doubledSteps(world, rules, add);
      return;
    case "releasing":
      releasingSteps(world, rules, add);
      return;
    default:
      return;
  }
}

/** The steps until the guest is granted: the copy, the switchover, and the journal's word that the guest is granted. */
function stepsBeforeTheGrant(
  world: World,
  source: "copying" | "switching" | "retiring" | "recording",
  manner: Manner,
  rules: Rules,
  add: Add,
): void {
  const { sourceQemu, sourceJournal } = world;
  const go = (state: SourceStateName): Partial<World> => toSource(world, state, rules);
  switch (source) {
    case "copying": {
      if (sourceJournal === "plan" && rules.notesRetiring) {
        write(world, "retiring", add, "plan with retiring", {}, go(rules.afterSource(source, "fault")));
        return;
      }
      add("source gives up", go(rules.afterSource(source, "fault")));
      const stopped = manner === "postcopy" ? "retired" : "final";
      if (sourceQemu === "running" || (sourceQemu === "paused" && manner === "paused"))
        add("source stops the guest", { ...go(rules.afterSource(source, "decided")), sourceQemu: stopped });
      return;
    }
    case "switching":
      if (world.loaded) add("source hears loaded", go(rules.afterSource(source, "loaded")));
      add("source gives up", go(rules.afterSource(source, "fault")));
      return;
    case "retiring":
      if (sourceQemu === "final") add("SHUT", { sourceQemu: "retired" });
      if (sourceQemu === "retired") add("source QEMU is retired", go(rules.afterSource(source, "retired")));
      add(
        "source QEMU is not retired",
        go(rules.afterSource(source, "fault")),
        sourceQemu === "final" ? "fault" : "normal",
      );
      return;
    case "recording":
      if (!rules.grantedFirst) add("granted not written, by rule", go(rules.afterSource(source, "written")));
      else
        write(
          world,
          "granted",
          add,
          "granted",
          go(rules.afterSource(source, "written")),
          go(rules.afterSource(source, "fault")),
        );
      return;
  }
}

function releasingSteps(world: World, rules: Rules, add: Add): void {
  const { sourceJournal, because } = world;
  if (sourceJournal !== "released" && !world.sourceDiskFull) add("released written", { sourceJournal: "released" });
  if (sourceJournal !== "released" && !world.sourceDiskFull) return;
  const done = toSource(world, rules.afterSource("releasing", "done"), rules);
  if (!rules.looksAtTheProcess && world.sourceOther) {
    add(
      "source says quit to another process",
      { sourceOther: false, ...done },
      "normal",
      "something was said to a QEMU that is not the record's",
    );
    return;
  }
  const found = lookAtSource(world, rules);
  if (found === "gone") add("source sees that its QEMU has ended", done);
  else if (found === "retired" || because === "word" || !rules.showsDoubled || world.sourceQemu === "reset") {
    const { to, broken } = quitSource(world);
    add("source QEMU ended by the agent", { ...to, ...done }, "normal", broken);
  } else if (found === "active")
    add("source sees that the guest runs here too", {
      ...toSource(world, rules.afterSource("releasing", "doubled"), rules),
      // a note that the disk does not take is forgotten when the agent ends
      destinationStale: world.sourceDiskFull ? world.destinationStale : seen(world.destinationStale),
      shown: true,
    });
}
