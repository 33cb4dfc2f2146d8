/**
 * All cells of the matrix: every fault at every phase, agents and QEMUs killed at each further step of the hand-over,
 * the other strategies, and the cells of matrix-world.ts.
 */
import type { Strategy } from "../../shared/protocol/messages.ts";
import { type Cell, FINAL_GIVE_UP_MS } from "./cell.ts";
import { canHaveDisks } from "./disks.ts";
import {
  type Fault,
  faultName,
  held,
  type Moment,
  momentName,
  needsCable,
  needsDisk,
  type Victim,
  victimOf,
} from "./faults.ts";
import { WORLD } from "./matrix-world.ts";

const PHASES = ["handshake", "first pass", "later passes", "switching", "loaded", "granted", "running"] as const;
type Phase = (typeof PHASES)[number];

const VICTIMS: readonly Victim[] = ["source agent", "destination agent", "source QEMU", "destination QEMU"];
/**
 * How long a process is stopped, seconds: longer than `link.giveUpAfter`, `link.finalGiveUpAfter` and `qmp.timeout` of
 * the short limits.
 */
const STOP_SECONDS = 5;

const FAULTS: readonly Fault[] = [
  ...VICTIMS.map((victim): Fault => ({ kind: "kill", victim })),
  ...VICTIMS.map((victim): Fault => ({ kind: "stop", victim, seconds: STOP_SECONDS })),
  { kind: "cut", seconds: 1 },
  { kind: "cut", seconds: 5 },
  { kind: "cut", seconds: undefined },
  { kind: "reverse", seconds: undefined },
];

/**
 * The moment of a phase at which the fault can do most: at the agent of its victim, and never before the victim is
 * there.
 */
function momentOf(phase: Phase, victim: Victim | undefined): Moment {
  const atSource = victim?.startsWith("source") === true;
  const atDestination = victim?.startsWith("destination") === true;
  switch (phase) {
    case "handshake":
      return held("destination", victim === "destination QEMU" ? "staging" : "negotiating");
    case "first pass":
    case "later passes":
      return { kind: phase };
    case "switching":
      return held("source", "switching");
    case "loaded":
      return atSource ? held("source", "retiring") : held("destination", "loaded");
    case "granted":
      return atDestination ? held("destination", "owning") : held("source", "granting");
    case "running":
      return atSource ? held("source", "releasing") : held("destination", "arrived");
  }
}

/** The moments at which the destination does not have the whole guest yet. */
const BEFORE_LOADED: readonly string[] = [
  "destination negotiating",
  "destination staging",
  "destination receiving",
  "destination loading",
  "source staging",
  "source copying",
  "source switching",
  "first pass",
  "later passes",
];
/**
 * The longest pause of a guest where a fault comes before it is stopped, milliseconds. The guest notices only the
 * switchover, whose target is 300 ms, and the machine may have much else to do. A guest that waited for the fault would
 * stand still for the fault's 5 s.
 */
const UNNOTICED_MS = 3000;
/**
 * The longest pause of a guest that goes on at its source after link.finalGiveUpAfter, milliseconds. It includes the
 * time for QMP's answer and for the next heartbeat on a busy machine. A guest that waited for the link would stand
 * still for longer.
 */
const GIVEN_UP_MS = FINAL_GIVE_UP_MS + 3000;
const BEFORE_STOP: readonly string[] = ["destination negotiating", "destination staging", "first pass", "later passes"];
const BEFORE_GRANT: readonly string[] = ["source switching", "destination loading", "destination loaded"];

/**
 * The longest pause of the guest that is promised, milliseconds. Nothing is promised where an agent or a QEMU is lost
 * in the middle of a switchover.
 */
function longestPause(fault: Fault, when: string): number | undefined {
  if (fault.kind === "stop" && fault.victim === "source QEMU") return undefined;
  if (BEFORE_STOP.includes(when)) return UNNOTICED_MS;
  return needsCable(fault) && BEFORE_GRANT.includes(when) ? GIVEN_UP_MS : undefined;
}

const HAS_RUN_THERE: readonly string[] = ["destination arrived", "source releasing"];
const AFTER_GRANT: readonly string[] = ["destination owning", "destination starting", "destination arrived"];

/**
 * Moments at which an agent gives a loaded guest up. Both agents do so at the same time, so the other agent may not
 * have begun yet.
 */
const GIVES_UP_LOADED: readonly string[] = [
  "source keeping, cancelled at destination loaded",
  "destination refusing, cancelled at destination loaded",
];

/** Makes a cell, with what its fault may cost at its moment. */
function makeCell(phase: string, fault: Fault, moment: Moment): Cell {
  const victim = victimOf(fault);
  const killed = fault.kind === "kill" ? victim : undefined;
  const when = momentName(moment);
  const cancelled = moment.kind === "held" && moment.cancelledAt !== undefined;
  const isWhole = !cancelled && !BEFORE_LOADED.includes(when);
  const copying = moment.kind === "first pass" || moment.kind === "later passes";
  const mustMove =
    (killed === "source QEMU" && isWhole) || (fault.kind === "cut" && fault.seconds !== undefined && copying);
  const longestPauseMs = longestPause(fault, when);
  return {
    name: phase === "" ? `${when}: ${faultName(fault)}` : `${phase}: ${faultName(fault)}`,
    fault,
    moment,
    limits: fault.kind === "cut" && fault.seconds !== undefined ? "patient" : "short",
    mayLose: (killed === "source QEMU" && !isWhole) || (killed === "destination QEMU" && HAS_RUN_THERE.includes(when)),
    mayDoubt:
      (killed === "destination QEMU" && AFTER_GRANT.includes(when)) ||
      // the guest may have run on at the source, so only its operator can say whether the copy at the destination is to
      // live
      (killed === "source QEMU" && GIVES_UP_LOADED.includes(when)),
    ...(mustMove ? { mustMove } : {}),
    ...(longestPauseMs === undefined ? {} : { longestPauseMs }),
  };
}

const further = (victim: Victim, moments: readonly Moment[]): readonly Cell[] =>
  moments.map((moment) => makeCell("", { kind: "kill", victim }, moment));

/**
 * The moments at which an agent gives the guest up, where a fault must do no harm either. A destination refuses only a
 * guest that it had loaded.
 */
const GIVING_UP: readonly Moment[] = [
  held("source", "keeping", { kind: "first pass" }),
  held("source", "keeping", held("destination", "loaded")),
  held("destination", "discarding", { kind: "first pass" }),
  held("destination", "refusing", held("destination", "loaded")),
];

const sources = (...states: string[]): readonly Moment[] => states.map((state) => held("source", state));
const destinations = (...states: string[]): readonly Moment[] => states.map((state) => held("destination", state));

/**
 * The moments of post-copy. After the package a guest has its devices at one host and pages at the other. At any step
 * agents may end and links be cut, and nothing is lost; a QEMU that ends takes the guest with it.
 */
const POSTCOPY_MOMENTS: readonly Moment[] = [
  ...sources("switching", "retiring", "recording", "granting", "serving"),
  ...destinations("receiving", "loading", "loaded", "owning", "starting", "pulling"),
];
const AGENT_FAULTS: readonly Fault[] = [
  { kind: "kill", victim: "source agent" },
  { kind: "kill", victim: "destination agent" },
  { kind: "cut", seconds: 5 },
];
const QEMU_FAULTS: readonly Fault[] = [
  { kind: "kill", victim: "source QEMU" },
  { kind: "kill", victim: "destination QEMU" },
];

/**
 * Makes a cell of one strategy. No pause is promised for a guest that is stopped all the time, or that may be at both
 * hosts in parts.
 */
function strategyCell(strategy: Strategy, fault: Fault, moment: Moment): Cell {
  const { name, longestPauseMs: _, mustMove, ...cell } = makeCell("", fault, moment);
  const label = strategy === "postcopy" ? "post-copy" : strategy;
  // a cut is waited for only as long as the guest runs
  const stopped = strategy === "stop-and-copy";
  const waits = !stopped && moment.kind === "first pass";
  const must = mustMove === undefined || (stopped && fault.kind === "cut") ? {} : { mustMove };
  return { ...cell, ...must, name: `${label}, ${name}`, strategy, limits: waits ? cell.limits : "short" };
}

/** Makes a cell in which the guest runs with pages missing: the end of either QEMU ends the guest. */
function halvesCell(strategy: Strategy, fault: Fault, moment: Moment): Cell {
  const { mustMove: _, ...cell } = strategyCell(strategy, fault, moment);
  const strands = fault.kind === "kill" && fault.victim === "source QEMU";
  return { ...cell, mayLose: true, mayDoubt: !strands, ...(strands ? { strands } : {}) };
}

const HALVES: readonly Moment[] = [...sources("serving"), ...destinations("pulling")];
/** The moments of stop-and-copy, and of hybrid below: one of each part of the way, beside post-copy's own cells. */
const STOPPED_MOMENTS: readonly Moment[] = [
  { kind: "first pass" },
  ...sources("switching", "granting"),
  ...destinations("loading", "loaded", "owning"),
];
const HYBRID_MOMENTS: readonly Moment[] = [
  { kind: "first pass" },
  ...sources("switching", "granting", "serving"),
  ...destinations("loaded", "pulling"),
];

export const MATRIX: readonly Cell[] = [
  ...PHASES.flatMap((phase) => FAULTS.map((fault) => makeCell(phase, fault, momentOf(phase, victimOf(fault))))),
  ...further("source agent", [
    ...sources("planned", "negotiating", "staging", "copying", "recording"),
    ...destinations("loading", "loaded", "owning", "starting", "arrived"),
  ]),
  ...further("destination agent", [
    ...destinations("staging", "receiving", "loading", "starting"),
    ...sources("retiring", "recording", "granting", "releasing"),
  ]),
  ...further("source QEMU", [
    ...sources("staging", "recording"),
    ...destinations("loading", "loaded", "owning", "starting"),
  ]),
  ...further("destination QEMU", [
    ...destinations("receiving", "loading", "starting"),
    ...sources("retiring", "recording", "granting", "releasing"),
  ]),
  ...VICTIMS.flatMap((victim) => further(victim, GIVING_UP)),
  ...AGENT_FAULTS.map((fault) => strategyCell("postcopy", fault, { kind: "last pages" })),
  ...AGENT_FAULTS.flatMap((fault) => POSTCOPY_MOMENTS.map((moment) => strategyCell("postcopy", fault, moment))),
  ...AGENT_FAULTS.flatMap((fault) => HYBRID_MOMENTS.map((moment) => strategyCell("hybrid", fault, moment))),
  ...(["postcopy", "hybrid"] as const).flatMap((strategy) =>
    QEMU_FAULTS.flatMap((fault) => HALVES.map((moment) => halvesCell(strategy, fault, moment))),
  ),
  ...[...AGENT_FAULTS, ...QEMU_FAULTS].flatMap((fault) =>
    STOPPED_MOMENTS.map((moment) => strategyCell("stop-and-copy", fault, moment)),
  ),
  ...WORLD,
];

/** Finds a cell by its name. @throws RangeError when the matrix has no such cell */
export function cellNamed(name: string): Cell {
  const cell = MATRIX.find((one) => one.name === name);
  if (cell === undefined) throw new RangeError(`The matrix has no cell ${name}`);
  return cell;
}

/** True when a cell can be run here: over the loopback nothing can be cut, and only root can mount disks. */
export function possible({ fault, moment }: Cell, network: "namespaces" | "loopback"): boolean {
  const behind = moment.kind === "held" && moment.behind !== undefined ? [moment.behind.fault] : [];
  const all = [fault, ...behind];
  return (network === "namespaces" || !all.some(needsCable)) && (canHaveDisks() || !all.some(needsDisk));
}
