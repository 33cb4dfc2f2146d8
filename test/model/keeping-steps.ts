/**
 * The steps by which the source agent takes the guest back: the plan over the grant, `cont` for a guest that ran, and
 * `kept`.
 */
import { type Change, isAtSource, own, startSource } from "./copies.ts";
import type { Rules } from "./rules.ts";
import { mayRunAtSource, toSource, write } from "./source-parts.ts";
import type { Add, Manner, World } from "./world.ts";

export function keepingSteps(world: World, manner: Manner, rules: Rules, add: Add): void {
  const { sourceJournal, sourceQemu, because } = world;
  if (world.withdraw === "no" && sourceQemu !== "gone" && because === "none")
    add("source says withdraw once", { withdraw: "true" });
  if (!rules.looksAtTheProcess && world.sourceOther && sourceQemu !== "running") {
    add("source says cont to another process", {}, "normal", "something was said to a QEMU that is not the record's");
    return;
  }
  const isGranted = sourceJournal === "granted" || sourceJournal === "withdrawn";
  if (isGranted && rules.planOverGranted && !world.sourceDiskFull) {
    // a guest whose grant was withdrawn has run here since this agent retired its QEMU, so a QEMU in postmigrate is not
    // the agent's own doing
    add("plan written over granted", { sourceJournal: sourceJournal === "withdrawn" ? "plan" : "retiring" });
    return;
  }
  // a grant that may be on the disk is taken back before the guest runs again: by the disk, or by the destination
  if (!mayRunAtSource(world, rules)) {
    if (world.withdraw === "no") add("source says withdraw once", { withdraw: "true" });
    if (world.refused) add("source hears refused", { because: "refused" });
    return;
  }
  const isOurs = sourceJournal === "retiring" || sourceJournal === "granted" || !rules.notesRetiring;
  switch (sourceQemu) {
    case "final": {
      const back = manner === "paused" ? { to: { sourceQemu: "paused" as const } } : startSource(world, manner);
      add("source QEMU takes its guest back", back.to, "normal", back.broken);
      return;
    }
    case "gone":
      gone(world, rules, add);
      return;
    case "retired":
    case "moved": {
      if (manner === "paused" || !isOurs || (world.sourceOther && rules.looksBesideCont)) {
        done(world, manner, rules, add);
        return;
      }
      const { to, broken } = startSource(world, manner);
      add("cont at the source", to, "normal", broken);
      return;
    }
    default:
      done(world, manner, rules, add);
      return;
  }
}

function gone(world: World, rules: Rules, add: Add): void {
  const mayBeWhole = world.sourceJournal !== "plan";
  if (mayBeWhole && rules.orphans) {
    add(
      "source sees that its QEMU has ended before the grant",
      toSource(world, rules.afterSource("keeping", "gone"), rules),
    );
    return;
  }
  kept(world, rules, add, undefined);
}

function done(world: World, manner: Manner, rules: Rules, add: Add): void {
  // from here on the source has a guest that stays paused
  kept(
    world,
    rules,
    add,
    manner === "paused" && isAtSource(world) && world.sourceQemu !== "running" && !world.sourceOther
      ? own(world, "source")
      : undefined,
  );
}

function kept(world: World, rules: Rules, add: Add, change: Change | undefined): void {
  const untold = rules.tellsUntilHeard;
  const next = toSource(world, rules.afterSource("keeping", untold ? "untold" : "done"), rules);
  const named: Add = (name, to, kind) => add(name, { ...to, ...change?.to }, kind, change?.broken);
  write(world, untold ? "untold" : "kept", named, "kept", next, next);
}
