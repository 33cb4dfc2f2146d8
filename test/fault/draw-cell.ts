/**
 * Draws a cell by chance: which fault, and at which moment. What the fault costs is found out after it (make-cell.ts).
 */
import type { Strategy } from "../../shared/protocol/messages.ts";
import type { Cell } from "./cell.ts";
import {
  type AgentKind,
  type Fault,
  held,
  heldBehind,
  type Moment,
  momentName,
  needsCable,
  needsDisk,
  secondsOf,
  type Victim,
} from "./faults.ts";
import { type Excuses, worldCell } from "./make-cell.ts";

const sources = (...states: string[]): readonly Moment[] => states.map((state) => held("source", state));
const destinations = (...states: string[]): readonly Moment[] => states.map((state) => held("destination", state));

const HOLDS: readonly Moment[] = [
  ...sources(
    "planned",
    "negotiating",
    "staging",
    "copying",
    "switching",
    "retiring",
    "recording",
    "granting",
    "releasing",
  ),
  ...destinations("negotiating", "staging", "receiving", "loading", "loaded", "owning", "starting", "arrived"),
];
const POSTCOPY_HOLDS: readonly Moment[] = [
  ...sources("switching", "retiring", "recording", "granting", "serving"),
  ...destinations("receiving", "loading", "loaded", "owning", "starting", "pulling"),
];
/** The moments at which the destination may not have a QEMU yet. */
const BEFORE_QEMU: readonly string[] = ["source planned", "source negotiating", "destination negotiating"];
const AGENTS: readonly Victim[] = ["source agent", "destination agent"];
const QEMUS: readonly Victim[] = ["source QEMU", "destination QEMU"];
const SIDES: readonly AgentKind[] = ["source", "destination"];
/**
 * The latest time of a fault after the command, milliseconds: a migration of this guest takes about this long at full
 * rate.
 */
const LATEST_MS = 1500;
const LONGEST_STOP_SECONDS = 5;
const LONGEST_CUT_SECONDS = 6;
const LONGEST_DISK_SECONDS = 8;

/** The faults and how often each is drawn, of a hundred. */
const KINDS = [
  ["kill agent", 18],
  ["kill QEMU", 12],
  ["stop", 10],
  ["cut", 22],
  ["host", 12],
  ["disk", 10],
  ["keeper", 4],
  ["second agent", 3],
  ["outsider", 4],
  ["supervisor", 3],
  ["words", 2],
] as const;
type Kind = (typeof KINDS)[number][0];

/** Which faults this rig can commit. */
export interface Able {
  readonly cable: boolean;
  readonly disks: boolean;
}

/** How often each strategy is drawn, of a hundred; what is left is the agents' own choice, which is precopy. */
const POSTCOPY_SHARE = 25;
const HYBRID_SHARE = 15;

/** Draws a cell. It takes the same count of random numbers whatever comes of them, so that one seed is one run. */
export function drawCell(random: () => number, able: Able): Cell {
  const [what, whom, when, where, long, rate] = [random(), random(), random(), random(), random(), random()];
  const way = random() * 100;
  const kind = kindOf(what);
  const drawn = drawFault(kind, whom, long);
  const isPossible =
    (able.cable || !needsCable(drawn)) && (able.disks || !needsDisk(drawn)) && (able.cable || kind !== "words");
  const fault: Fault = isPossible ? drawn : { kind: "kill", victim: pick(AGENTS, whom) };
  const strategy = strategyFor(kind, way);
  const moment = momentFor(fault, strategy, { when, where, rate });
  const lasts = needsCable(fault) && secondsOf(fault) !== undefined;
  const limits = lasts ? "patient" : "short";
  return worldCell(fault, moment, { limits, ...excuses(kind, fault), ...halves(fault, strategy, moment) }, strategy);
}

function kindOf(drawn: number): Kind {
  let left = drawn * 100;
  for (const [kind, share] of KINDS) {
    if (left < share) return kind;
    left -= share;
  }
  return "kill agent";
}

/** How long a fault lasts, seconds; undefined in one of five draws, for a fault that lasts for good. */
const lasting = (long: number, most: number): number | undefined =>
  long < 0.8 ? 0.1 + (long / 0.8) * most : undefined;

function drawFault(kind: Kind, whom: number, long: number): Fault {
  const side = pick(SIDES, whom);
  switch (kind) {
    case "kill agent":
      return { kind: "kill", victim: pick(AGENTS, whom) };
    case "kill QEMU":
      return { kind: "kill", victim: pick(QEMUS, whom) };
    case "stop":
      return { kind: "stop", victim: pick([...AGENTS, ...QEMUS], whom), seconds: 0.2 + long * LONGEST_STOP_SECONDS };
    case "cut":
      return { kind: whom < 0.75 ? "cut" : "reverse", seconds: lasting(long, LONGEST_CUT_SECONDS) };
    case "host":
      return { kind: "host", side, returns: long < 0.5 };
    case "disk": {
      const how = long < 0.6 ? "full" : "hanging";
      const seconds = how === "full" && long < 0.3 ? undefined : 0.5 + long * LONGEST_DISK_SECONDS;
      return { kind: "disk", side, how, seconds };
    }
    case "keeper":
      return { kind: "all", of: [{ kind: "keeper" }, ...(long < 0.5 ? [{ kind: "cut", seconds: 3 } as const] : [])] };
    case "second agent":
      return { kind: "second agent", side };
    case "outsider":
      return { kind: "outsider", side, command: long < 0.6 ? "cont" : "quit" };
    case "supervisor":
      return { kind: "kill", victim: pick(QEMUS, whom) };
    case "words":
      return { kind: "words", words: pick(["contrary", "late", "wrong host", "unconfirmed"], long) };
  }
}

function strategyFor(kind: Kind, way: number): Strategy | undefined {
  if (kind === "keeper") return "postcopy";
  if (kind === "words" || way >= POSTCOPY_SHARE + HYBRID_SHARE) return undefined;
  return way < POSTCOPY_SHARE ? "postcopy" : "hybrid";
}

/** The moments of post-copy at which a guest has its devices at one host and pages at the other. */
const IS_HALVED: readonly string[] = [
  ...["source granting", "source serving"],
  ...["destination owning", "destination starting", "destination pulling"],
];

/**
 * What a fault may cost at these moments: the end of either QEMU takes the guest with it. If the source's QEMU has
 * ended, what is left at the destination misses its pages.
 */
function halves(fault: Fault, strategy: Strategy | undefined, moment: Moment): Excuses {
  const ended = endedSide(fault);
  if (strategy === undefined || ended === undefined || !IS_HALVED.includes(momentName(moment))) return {};
  return ended === "source" ? { mayLose: true, strands: true } : { mayLose: true };
}

/** The side whose QEMU the fault ends; undefined when it ends none. */
function endedSide(fault: Fault): AgentKind | undefined {
  if (fault.kind === "host" || (fault.kind === "outsider" && fault.command === "quit")) return fault.side;
  if (fault.kind !== "kill" || !fault.victim.endsWith("QEMU")) return undefined;
  return fault.victim === "source QEMU" ? "source" : "destination";
}

/** What a fault may cost because somebody other than the agents acts. */
function excuses(kind: Kind, fault: Fault): Excuses {
  if (kind === "supervisor") return { supervisor: "asks" };
  return fault.kind === "outsider" && fault.command === "cont" ? { mayDouble: true } : {};
}

interface When {
  readonly when: number;
  readonly where: number;
  readonly rate: number;
}

function momentFor(fault: Fault, strategy: Strategy | undefined, { when, where, rate }: When): Moment {
  if (fault.kind === "words")
    return heldBehind("source", "inDoubt", { kind: "cut", seconds: undefined }, held("source", "granting"));
  if (fault.kind === "all") return pick(POSTCOPY_HOLDS, where);
  // what such a fault costs depends on the state, which must then be known
  if (strategy !== undefined && (when < 0.8 || endedSide(fault) !== undefined)) return pick(POSTCOPY_HOLDS, where);
  // what a second agent has touched is seen only beside a first agent that is held and writes nothing
  if (fault.kind !== "second agent" && when >= 0.5)
    return { kind: "after", ms: (when - 0.5) * 2 * LATEST_MS, bitsPerSecond: rate < 0.5 ? 1e9 : 150e6 };
  const needsQemu =
    (fault.kind === "kill" || fault.kind === "stop" ? fault.victim === "destination QEMU" : false) ||
    (fault.kind === "outsider" && fault.side === "destination");
  return pick(needsQemu ? HOLDS.filter((one) => !BEFORE_QEMU.includes(momentName(one))) : HOLDS, where);
}

const pick = <Item>(items: readonly Item[], drawn: number): Item => items[Math.floor(drawn * items.length)]!;
