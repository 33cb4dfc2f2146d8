/**
 * The steps that come to a migration from outside: messages are lost, hosts die, somebody else acts at a QEMU,
 * supervisors start guests, and disks are full.
 */
import { runsAtDestination, runsAtSource, runsElsewhere } from "./copies.ts";
import { DESTINATION_KIND, withoutDestination } from "./destination-parts.ts";
import type { Rules } from "./rules.ts";
import { JOURNAL_KIND, withoutSource } from "./source-parts.ts";
import type { Add, Manner, World } from "./world.ts";

export function worldSteps(world: World, manner: Manner, rules: Rules, add: Add): void {
  networkSteps(world, add);
  hostSteps(world, add);
  if (world.faults > 0) faultSteps(world, manner, rules, add);
  if (world.acts > 0) {
    actsAtSource(world, manner, add);
    actsAtDestination(world, add);
  }
  supervisorSteps(world, rules, add);
}

/**
 * The steps by which messages are lost. A lost message is lost for good, but an agent that repeats it can say it again.
 */
function networkSteps(world: World, add: Add): void {
  if (world.loaded) add("loaded is lost", { loaded: false }, "chance");
  if (world.grant) add("the grant is lost", { grant: false }, "chance");
  if (world.withdraw !== "no") add("withdraw is lost", { withdraw: "no" }, "chance");
  if (world.running !== "no") add("running is lost", { running: "no" }, "chance");
  if (world.pulling) add("pulling is lost", { pulling: false }, "chance");
  if (world.refused) add("refused is lost", { refused: false }, "chance");
}

/**
 * True when a fault at the source excuses the loss of the guest: the destination is already letting its own copy go.
 */
const excusedAtSource = (world: World): boolean =>
  world.lossExcused || world.destination === "discarding" || world.destinationJournal === "heard";
/**
 * True when a fault at the destination excuses the loss of the guest: the source is already letting its own copy go.
 */
const excusedAtDestination = (world: World): boolean => world.lossExcused || world.source === "releasing";

function hostSteps(world: World, add: Add): void {
  if (world.source === "off") add("source's host comes back", { source: "down" }, "chance");
  if (world.destination === "off") add("destination's host comes back", { destination: "down" }, "chance");
  if (world.sourceDiskFull) add("source's disk has room again", { sourceDiskFull: false });
  if (world.destinationDiskFull) add("destination's disk has room again", { destinationDiskFull: false });
}

function faultSteps(world: World, manner: Manner, rules: Rules, add: Add): void {
  const fault = (name: string, change: Partial<World>): void => add(name, change, "fault");
  const noSource = { sourceQemu: "gone" as const, lossExcused: excusedAtSource(world) };
  const noDestination = { destinationQemu: "gone" as const, marked: false, lossExcused: excusedAtDestination(world) };
  if (world.source !== "off") {
    fault("source's host dies", { ...withoutSource(world, manner), ...noSource, source: "off", sourceOther: false });
    if (world.sourceQemu !== "gone") fault("source QEMU killed", noSource);
  }
  if (world.destination !== "off") {
    const nothing = { ...withoutDestination(world), ...noDestination, destinationOther: false };
    fault("destination's host dies", { ...nothing, destination: "off" });
    if (world.destinationQemu !== "gone") fault("destination QEMU killed", noDestination);
  }
  const pulls = world.missing && world.destinationQemu === "running" && world.destination !== "off";
  if (pulls && !world.keeperGone)
    fault("the keeper is killed", { keeperGone: true, cut: world.cut || !rules.keepsStream });
  if (pulls && !world.cut) fault("the page stream breaks", { cut: true });
  if (!world.locked && world.destinationQemu === "loaded")
    fault("an image of the destination is locked", { locked: true });
  if (!world.sourceDiskFull) fault("source's disk is full", { sourceDiskFull: true });
  if (!world.destinationDiskFull) fault("destination's disk is full", { destinationDiskFull: true });
}

function actsAtSource(world: World, manner: Manner, add: Add): void {
  const { source, sourceQemu } = world;
  const act = (name: string, change: Partial<World>): void => add(`somebody says ${name} at the source`, change, "act");
  // QEMU refuses these commands with "Migration is not finalized yet"
  const isHeld = sourceQemu === "final" || (manner === "postcopy" && sourceQemu === "retired" && world.missing);
  if (sourceQemu !== "running" && sourceQemu !== "gone" && !isHeld)
    act("cont", { sourceQemu: "running", ...runsAtSource(world) });
  if (sourceQemu === "running" && source !== "copying") act("stop", { sourceQemu: "paused" });
  if (sourceQemu !== "gone") act("quit", { sourceQemu: "gone", lossExcused: excusedAtSource(world) });
  const migrates = sourceQemu === "running" || (sourceQemu === "paused" && manner === "paused");
  if (migrates && source !== "copying" && source !== "switching")
    act("migrate", { sourceQemu: "moved", ...movedAway(world) });
  if ((sourceQemu === "retired" || sourceQemu === "moved") && !isHeld)
    act("system_reset", { sourceQemu: "reset", lossExcused: true });
}

/**
 * The change when somebody has migrated the source's QEMU away. An agent that is about to say `cont` to a QEMU that it
 * has retired cannot tell such a QEMU from one that somebody has migrated since.
 */
function movedAway(world: World): Partial<World> {
  const isTold =
    ["plan", "withdrawn"].includes(world.sourceJournal) ||
    world.sourceJournal === "kept" ||
    world.sourceJournal === "untold";
  const elsewhere = runsElsewhere(world);
  return isTold
    ? { ...elsewhere, sourceStale: "known" }
    : { ...elsewhere, sourceStale: "excused", destinationStale: "excused" };
}

function actsAtDestination(world: World, add: Add): void {
  const { destinationQemu } = world;
  const act = (name: string, change: Partial<World>): void =>
    add(`somebody says ${name} at the destination`, change, "act");
  if (destinationQemu === "loaded" || destinationQemu === "stopped" || destinationQemu === "moved")
    act("cont", { destinationQemu: "running", ...runsAtDestination(world) });
  if (destinationQemu === "running") act("stop", { destinationQemu: "stopped" });
  if (destinationQemu !== "gone")
    act("quit", { destinationQemu: "gone", marked: false, lossExcused: excusedAtDestination(world) });
  if ((destinationQemu === "running" || destinationQemu === "stopped") && !world.missing)
    act("migrate", { destinationQemu: "moved", ...runsAtDestination(world), destinationStale: "known" });
}

const GRANT = { token: "aa", epoch: 1, paused: false };
const COMMON = { guest: "web", sequence: 1, startedAtMs: 0, grant: GRANT };

/**
 * The steps of supervisors, which start the guest where its QEMU has ended: as the journal allows it, or without
 * asking.
 */
function supervisorSteps(world: World, rules: Rules, add: Add): void {
  // the new guest goes on from the disks, so the process of the record is older
  const sourceStale = world.sourceStale === "no" ? ("excused" as const) : world.sourceStale;
  const anew = { sourceOther: true, sourceStale, ...runsAtSource(world) };
  const stands = world.sourceQemu === "gone" || world.sourceQemu === "retired" || world.sourceQemu === "moved";
  if (stands && !world.sourceOther && world.source !== "off")
    add("somebody who does not ask starts the guest anew at the source", anew, "act");
  if (world.sourceQemu === "gone" && !world.sourceOther && world.source !== "off") {
    const record = { kind: JOURNAL_KIND[world.sourceJournal], destination: "b", ...COMMON };
    const runs = { sourceOther: true, ...runsAtSource(world) };
    if (rules.mayStart({ side: "source", id: "m", record }, false).may)
      add(
        "a supervisor starts the guest at the source",
        { ...runs, destinationStale: asked(world.destinationStale) },
        "chance",
        brokenByStart(world, "source"),
      );
  }
  if (world.sourceOther) add("somebody ends the other QEMU at the source", { sourceOther: false }, "act");
  if (
    world.destinationQemu === "gone" &&
    !world.destinationOther &&
    world.destination !== "off" &&
    world.destinationJournal !== "none"
  ) {
    const kind = DESTINATION_KIND[world.destinationJournal];
    const notes = world.destinationJournal === "unowned" ? { ungranted: true as const } : {};
    const record = { kind, source: "a", ...COMMON, ...notes };
    const runs = { destinationOther: true, ...runsAtDestination(world) };
    if (rules.mayStart({ side: "destination", id: "m", record }, false).may)
      add(
        "a supervisor starts the guest at the destination",
        { ...runs, sourceStale: asked(world.sourceStale) },
        "chance",
        brokenByStart(world, "destination"),
      );
  }
}

/**
 * What becomes of the other copy's staleness after a start that was allowed: the started guest is the newest, and no
 * agent may start another one.
 */
const asked = (stale: World["sourceStale"]): World["sourceStale"] => (stale === "excused" ? stale : "known");

/** The promise that the start by a supervisor that has asked breaks; undefined when it breaks none. */
function brokenByStart(world: World, side: "source" | "destination"): string | undefined {
  if (world.overruled) return undefined;
  // the guest runs at the source by somebody else's act, since the journal there does not allow it
  if (side === "destination" && world.shown) return undefined;
  if (side === "destination" && ["granted", "withdrawn", "released"].includes(world.sourceJournal)) return undefined;
  if (side === "source" && (world.sourceJournal === "kept" || world.sourceJournal === "untold")) return undefined;
  const runsAnyway =
    side === "source"
      ? (world.destinationQemu === "running" || world.destinationOther) && world.sourceStale === "known"
      : (world.sourceQemu === "running" || world.sourceOther) && world.destinationStale === "known";
  return runsAnyway ? `a supervisor that asked started a second copy at the ${side}` : undefined;
}
