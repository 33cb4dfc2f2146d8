/**
 * Cells in which others act on the guest: people at its monitor, supervisors that start it, and operators who say the
 * wrong word.
 */
import type { Cell } from "./cell.ts";
import {
  type AgentKind,
  type Fault,
  held,
  heldBehind,
  type Moment,
  type OutsiderCommand,
  type Words,
} from "./faults.ts";
import { at, FIRST_PASS, worldCell } from "./make-cell.ts";
import { disk } from "./matrix-disks.ts";
import { hostEnds } from "./matrix-hosts.ts";

const says = (side: AgentKind, command: OutsiderCommand): Fault => ({ kind: "outsider", side, command });
const together = (...of: Fault[]): Fault => ({ kind: "all", of });
const FOR_GOOD: Fault = { kind: "cut", seconds: undefined };
const SILENT: Fault = { kind: "reverse", seconds: undefined };
const SOURCE_AGENT: Fault = { kind: "kill", victim: "source agent" };
const DESTINATION_AGENT: Fault = { kind: "kill", victim: "destination agent" };
const SOURCE_QEMU: Fault = { kind: "kill", victim: "source QEMU" };
const DESTINATION_QEMU: Fault = { kind: "kill", victim: "destination QEMU" };

/** In doubt: the destination was not granted the guest, and neither agent can reach the other. */
const unheard = heldBehind("source", "inDoubt", FOR_GOOD, held("source", "granting"));
/** In doubt: the destination runs the guest, and its answer is lost. */
const unanswered = heldBehind("source", "inDoubt", SILENT, held("source", "granting"));
const withheld = held("destination", "withheld", held("destination", "loaded"));
/** Two copies: somebody says `cont` to the source QEMU just before the agent ends it. */
const doubled = heldBehind("source", "doubled", says("source", "cont"), held("source", "releasing"));

/**
 * Moments before the grant arrives: with an outsider's `cont` at the source still only one copy runs, and no agent may
 * add the other one.
 */
const CONT_AT_SOURCE: readonly Moment[] = [...at("source", "recording", "granting"), unheard];
const OUTSIDERS: readonly Cell[] = [
  ...CONT_AT_SOURCE.map((moment) => worldCell(says("source", "cont"), moment, { mayDouble: false })),
  worldCell(says("source", "cont"), unanswered, { mayDouble: "must" }),
  worldCell(says("source", "cont"), held("source", "releasing"), { mayDouble: "must" }),
  ...at("destination", "loading", "loaded", "owning", "starting").map((moment) =>
    worldCell(says("destination", "cont"), moment),
  ),
  ...at("destination", "loading", "loaded").map((moment) =>
    worldCell(says("destination", "cont"), moment, {}, "postcopy"),
  ),
  // the source cannot know of this `cont`, and takes its guest back
  worldCell(together(says("destination", "cont"), { kind: "cut", seconds: 5 }), held("destination", "loaded"), {
    mayDouble: true,
  }),
  worldCell(says("destination", "cont"), withheld, { mayDouble: "must" }),
  ...[SOURCE_AGENT, DESTINATION_AGENT, disk("source", "full", undefined)].map((fault) =>
    worldCell(fault, doubled, { mayDouble: "must" }),
  ),
  worldCell(says("source", "stop"), FIRST_PASS),
  worldCell(says("destination", "stop"), held("destination", "arrived")),
  ...[FIRST_PASS, ...at("source", "retiring", "granting"), unheard].map((moment) =>
    worldCell(says("source", "quit"), moment),
  ),
  ...at("destination", "loaded", "owning", "starting").map((moment) => worldCell(says("destination", "quit"), moment)),
  worldCell(says("source", "system_reset"), FIRST_PASS),
  worldCell(says("destination", "system_reset"), held("destination", "loaded")),
];

const NOTHING: Fault = together();
const SUPERVISED: readonly Cell[] = [
  ...[
    worldCell(NOTHING, held("source", "releasing"), { supervisor: "asks", mustMove: true }),
    ...[FIRST_PASS, ...at("source", "switching", "retiring", "granting"), unheard].map((moment) =>
      worldCell(SOURCE_QEMU, moment, { supervisor: "asks" }),
    ),
    // the destination's answer is on its way, so the source ends its copy, and the guest that had run at the
    // destination was the only one
    worldCell(DESTINATION_QEMU, held("destination", "arrived"), { supervisor: "asks", mayLose: true }),
    ...[FIRST_PASS, ...at("source", "granting")].map((moment) =>
      worldCell(hostEnds("source", true), moment, { supervisor: "asks" }),
    ),
  ],
  // a second copy may run, and is always shown as long as an agent is in contact
  ...[...at("source", "granting", "releasing"), unheard, unanswered].map((moment) =>
    worldCell(SOURCE_QEMU, moment, { supervisor: "blind", mayDouble: true }),
  ),
  worldCell(hostEnds("source", true), held("source", "granting"), { supervisor: "blind", mayDouble: true }),
];

const words = (which: Words): Fault => ({ kind: "words", words: which });
const WORDS: readonly Cell[] = [
  ...(["contrary", "late", "wrong host", "unconfirmed"] as const).map((which) => worldCell(words(which), unheard)),
  worldCell(words("contrary"), unanswered, { mayDouble: true }),
  worldCell(words("wrong"), unanswered, { mayDouble: "must" }),
];

export const OTHERS: readonly Cell[] = [...OUTSIDERS, ...SUPERVISED, ...WORDS];
