/**
 * The hand-over as a graph of states, for an exhaustive search: both agents by their own transition functions
 * (shared/protocol/*-states.ts), their journals, both QEMUs, and a network that may lose, repeat and reorder whatever was
 * ever sent (a message stays in the set and may be taken any number of times, or never). Agents crash and start again
 * between any two of these steps; a QEMU may be killed at any time.
 *
 * A step here is the least that can happen between two crashes: one journal write, one message, one word to QEMU.
 */
import {
  afterDestination,
  type DestinationStateName,
  recoverDestination,
  standingOf,
} from "../../shared/protocol/destination-states.ts";
import { afterSource, recoverSource, type SourceStateName } from "../../shared/protocol/source-states.ts";

/** `pulling`: the guest runs there, or is about to, and its pages are missing. */
type Message = "loaded" | "grant" | "pulling" | "running" | "refused" | "abort";

/** `down`: the agent's process is not there. */
export interface World {
  /** Post-copy: the guest was stopped by the source agent, and is granted before its pages are there. */
  readonly postcopy: boolean;
  /** Pages of the guest are only at the source. */
  readonly missing: boolean;
  readonly source: SourceStateName | "down";
  readonly sourceJournal: "plan" | "granted" | "released" | "kept";
  /**
   * `final`: stopped by its migration, is as it was before when its socket closes (running or paused); `retired`: never by itself.
   */
  readonly sourceQemu: "final" | "retired" | "running" | "paused" | "gone";
  readonly destination: DestinationStateName | "down";
  readonly destinationJournal: "none" | "waiting" | "running" | "arrived" | "refused";
  readonly destinationQemu: "loading" | "loaded" | "running" | "gone";
  readonly sent: readonly Message[];
  /** The guest has run at the destination. */
  readonly ran: boolean;
  /** The operator decided for the source: what ran at the destination is given up knowingly. */
  readonly overruled: boolean;
  /** A QEMU was killed: then there may be no guest. */
  readonly killed: boolean;
  /** The guest was paused: nobody starts it, and `ran` means that the destination took it as its own. */
  readonly paused: boolean;
}

export interface Step {
  readonly name: string;
  /** Crashes, kills and failed writes: the protocol comes to its end without them. Lost patience is none, it always comes. */
  readonly fault: boolean;
  readonly to: World;
}

/** Journal writes that are left out, to see that the search finds what they prevent. */
export type Mutation = "none" | "no granted" | "no running" | "no refused";

export const START: World = {
  postcopy: false,
  missing: false,
  source: "switching",
  sourceJournal: "plan",
  sourceQemu: "final",
  destination: "loading",
  destinationJournal: "waiting",
  destinationQemu: "loading",
  sent: [],
  ran: false,
  overruled: false,
  killed: false,
  paused: false,
};

/** The guest was paused by whoever operates it. */
export const PAUSED_START: World = { ...START, paused: true };

/** A source QEMU whose guest was paused when its migration began never runs it by itself, whatever breaks. */
export const POSTCOPY_START: World = { ...START, postcopy: true, missing: true, sourceQemu: "retired" };

export function stepsOf(world: World, mutation: Mutation): Step[] {
  const steps: Step[] = [];
  const add = (name: string, change: Partial<World>, fault = false): void => {
    steps.push({ name, fault, to: { ...world, ...change } });
  };
  sourceSteps(world, mutation, add);
  destinationSteps(world, mutation, add);
  if (world.sourceQemu !== "gone") add("source QEMU killed", { sourceQemu: "gone", killed: true }, true);
  if (world.destinationQemu !== "gone") add("destination QEMU killed", { destinationQemu: "gone", killed: true }, true);
  return steps;
}

type Add = (name: string, change: Partial<World>, fault?: boolean) => void;

const say = (world: World, message: Message): readonly Message[] =>
  world.sent.includes(message) ? world.sent : [...world.sent, message].sort();

function sourceSteps(world: World, mutation: Mutation, add: Add): void {
  const { source, sourceQemu, sent } = world;
  if (source === "down") {
    const found = sourceQemu === "retired" || sourceQemu === "gone" ? sourceQemu : "active";
    add("source agent starts", { source: recoverSource(world.sourceJournal, found) });
    return;
  }
  // the socket to QEMU closes with the agent
  const left = sourceQemu === "final" ? (world.paused ? "paused" : "running") : sourceQemu;
  add("source agent crashes", { source: "down", sourceQemu: left }, true);
  switch (source) {
    case "switching":
      if (sent.includes("loaded")) add("source sees loaded", { source: afterSource(source, "loaded") });
      add("source gives up", { source: afterSource(source, "fault") });
      return;
    case "retiring":
      if (sourceQemu === "final") add("SHUT", { sourceQemu: "retired" });
      else add("source QEMU retired", { source: afterSource(source, "retired") });
      add("source gives up", { source: afterSource(source, "fault") });
      return;
    case "recording": {
      const written = mutation === "no granted" ? world.sourceJournal : "granted";
      add("granted written", { source: afterSource(source, "written"), sourceJournal: written });
      add("granted on disk, then a crash", { source: "down", sourceJournal: written, sourceQemu: left }, true);
      add("granted not written", { source: afterSource(source, "fault") }, true);
      add(
        "granted written, and reported as failed",
        { source: afterSource(source, "fault"), sourceJournal: written },
        true,
      );
      return;
    }
    case "granting":
    case "inDoubt":
      add("grant sent", { sent: say(world, "grant") });
      if (sent.includes("running") || sent.includes("pulling"))
        add("source hears running", { source: afterSource(source, world.postcopy ? "pulling" : "running") });
      if (sent.includes("refused")) add("source hears refused", { source: afterSource(source, "refused") });
      if (source === "granting") add("silence", { source: afterSource(source, "fault") });
      else resolveSteps(world, add);
      return;
    case "serving":
      serveSteps(world, add);
      return;
    case "releasing":
      add("released", { source: afterSource(source, "done"), sourceJournal: "released", sourceQemu: "gone" });
      add("released, not written", { source: afterSource(source, "fault"), sourceQemu: "gone" }, true);
      return;
    case "keeping": {
      const resumed = keptAs(world);
      if (!sent.includes("abort")) add("abort sent", { sent: say(world, "abort") });
      if (sourceQemu !== resumed) add(`source QEMU ${resumed}`, { sourceQemu: resumed });
      else add("kept", { source: afterSource(source, "done"), sourceJournal: "kept" });
      if (sourceQemu === resumed) add("kept, not written", { source: afterSource(source, "done") }, true);
      return;
    }
    case "released":
    case "kept":
    case "stranded":
      return;
    default:
      throw new Error(`the search does not begin before switching: ${source}`);
  }
}

/** What *keeping* makes of the source's QEMU: `cont` for a guest that ran; one that was paused is left alone. */
function keptAs({ sourceQemu, paused }: World): World["sourceQemu"] {
  if (sourceQemu === "gone") return "gone";
  if (!paused) return "running";
  return sourceQemu === "final" ? "paused" : sourceQemu;
}

/** Post-copy: pages go where a guest misses them, for as long as its QEMU is there; who has ended is asked. */
function serveSteps(world: World, add: Add): void {
  const { destination, sourceQemu, missing, sent } = world;
  const pulls = destination === "pulling" || destination === "starting";
  if (missing && pulls && sourceQemu === "retired") add("pages served", { missing: false });
  if (sent.includes("running")) add("source hears complete", { source: afterSource("serving", "served") });
  if (destination === "lost") add("source hears lost", { source: afterSource("serving", "lost") });
  if (missing && sourceQemu === "gone") add("pages are lost", { source: afterSource("serving", "broken") });
}

/** The operator's word, after what `ferry resolve` checks: or has made sure of, where nobody can be asked. */
function resolveSteps(world: World, add: Add): void {
  const { destination, destinationQemu } = world;
  const unreachable = destination === "down";
  if (destination === "lost" || (unreachable && destinationQemu === "gone"))
    add("operator keeps the source", { source: afterSource("inDoubt", "keepSource"), overruled: true });
  // what may have run there is gone, and its copy here is not wanted
  if (destination === "lost")
    add("operator lets it go", { source: afterSource("inDoubt", "keepDestination"), overruled: true });
  const owns = world.paused ? world.ran && destinationQemu === "loaded" : destinationQemu === "running";
  if (unreachable && owns)
    add("operator keeps the destination", {
      source: afterSource("inDoubt", world.postcopy ? "keepPulling" : "keepDestination"),
    });
}

function destinationSteps(world: World, mutation: Mutation, add: Add): void {
  const { destination, destinationQemu, destinationJournal, sent } = world;
  if (destination === "down") {
    const pulls = world.postcopy && world.missing && destinationQemu === "running";
    const qemu = pulls ? "pulling" : destinationQemu;
    const found = destinationJournal === "none" ? "discarded" : recoverDestination(destinationJournal, qemu);
    add("destination agent starts", { destination: found });
    return;
  }
  add("destination agent crashes", { destination: "down" }, true);
  switch (destination) {
    case "loading":
      if (destinationQemu === "loading") add("QEMU has loaded", { destinationQemu: "loaded" });
      if (destinationQemu === "loaded") add("loaded", { destination: afterDestination(destination, "loaded") });
      add("destination gives up", { destination: afterDestination(destination, "fault") });
      return;
    case "loaded":
      if (destinationQemu === "loaded") add("loaded said", { sent: say(world, "loaded") });
      if (sent.includes("grant") && destinationQemu === "loaded")
        add("grant taken", { destination: afterDestination(destination, "granted") });
      add("destination gives up", { destination: afterDestination(destination, "fault") });
      return;
    case "owning": {
      const written = mutation === "no running" ? destinationJournal : "running";
      add("running written", { destination: afterDestination(destination, "written"), destinationJournal: written });
      add("running on disk, then a crash", { destination: "down", destinationJournal: written }, true);
      add("running not written", { destination: afterDestination(destination, "fault") }, true);
      add(
        "running written, and reported as failed",
        { destination: afterDestination(destination, "fault"), destinationJournal: written },
        true,
      );
      return;
    }
    case "starting":
      if (destinationQemu === "loaded" && !world.paused) add("cont", { destinationQemu: "running", ran: true });
      if (world.postcopy && sent.includes("grant")) add("pulling said", { sent: say(world, "pulling") });
      if (destinationQemu === "running" && world.postcopy)
        add("runs and pulls", { destination: afterDestination(destination, "pulls") });
      if (destinationQemu === (world.paused ? "loaded" : "running") && !world.postcopy) {
        const runs = { destination: afterDestination(destination, "runs"), ran: true };
        add("runs", { ...runs, destinationJournal: "arrived" });
        add("runs, not written", runs, true);
      }
      if (destinationQemu === "gone") add("started and gone", { destination: afterDestination(destination, "gone") });
      return;
    case "pulling": {
      if (sent.includes("grant")) add("pulling said", { sent: say(world, "pulling") });
      const complete = afterDestination(destination, "complete");
      if (destinationQemu === "gone") add("ran and gone", { destination: afterDestination(destination, "gone") });
      else if (!world.missing) {
        add("complete", { destination: complete, destinationJournal: "arrived" });
        add("complete, not written", { destination: complete }, true);
      }
      return;
    }
    case "refusing": {
      const written = mutation === "no refused" ? destinationJournal : "refused";
      add("refused written", { destination: afterDestination(destination, "written"), destinationJournal: written });
      add("refused on disk, then a crash", { destination: "down", destinationJournal: written }, true);
      add("refused not written", { destination: afterDestination(destination, "fault") }, true);
      return;
    }
    case "removing":
      if (destinationQemu !== "gone") add("destination QEMU ended", { destinationQemu: "gone" });
      else add("refused said", { destination: afterDestination(destination, "done"), sent: say(world, "refused") });
      return;
    case "discarding":
      if (destinationJournal === "refused" || mutation === "no refused") discardRefused(world, add);
      else
        add("discarded", {
          destination: afterDestination(destination, "done"),
          destinationQemu: "gone",
          destinationJournal: "none",
        });
      return;
    case "arrived":
    case "lost":
    case "discarded":
      if (!sent.includes("grant")) return;
      // it answers whoever asks, from its state as from its record
      if (standingOf(destination) === "running") add("running said", { sent: say(world, "running") });
      if (destinationJournal === "refused") add("refused said", { sent: say(world, "refused") });
      return;
    default:
      throw new Error(`the search does not begin before loading: ${destination}`);
  }
}

function discardRefused(world: World, add: Add): void {
  const { destinationQemu, sent } = world;
  if (!sent.includes("refused")) add("refused said", { sent: say(world, "refused") });
  else if (destinationQemu !== "gone") add("destination QEMU ended", { destinationQemu: "gone" });
  else add("discarded", { destination: afterDestination("discarding", "done") });
}
