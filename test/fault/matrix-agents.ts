/** Cells of the keeper of post-copy, of second agents, and of faults in the states of doubt. */
import type { Cell } from "./cell.ts";
import { type AgentKind, type Fault, held, heldBehind, type Moment } from "./faults.ts";
import { at, FIRST_PASS, worldCell } from "./make-cell.ts";
import { disk } from "./matrix-disks.ts";
import { hostEnds, ORPHANED } from "./matrix-hosts.ts";

const KEEPER: Fault = { kind: "keeper" };
const READS_ALL: Fault = { kind: "outsider", side: "destination", command: "pmemsave" };
const CUT: Fault = { kind: "cut", seconds: 5 };
const SOURCE_AGENT: Fault = { kind: "kill", victim: "source agent" };
const DESTINATION_AGENT: Fault = { kind: "kill", victim: "destination agent" };
const SOURCE_QEMU: Fault = { kind: "kill", victim: "source QEMU" };
const DESTINATION_QEMU: Fault = { kind: "kill", victim: "destination QEMU" };
const together = (...of: Fault[]): Fault => ({ kind: "all", of });
const LAST_PAGES: Moment = { kind: "last pages" };

/**
 * The keeper is killed alone, together with its stream, and together with the agent: nothing is lost. Where keeper and
 * agent end together, a QEMU whose main loop waits for a page answers no client any more, and an operator ends that
 * QEMU.
 */
const KEEPERS: readonly Cell[] = [
  ...[
    ...at("destination", "receiving", "loading", "loaded", "owning", "starting", "pulling"),
    ...at("source", "granting", "serving"),
    LAST_PAGES,
  ].map((moment) => worldCell(KEEPER, moment, { mayDoubt: false }, "postcopy")),
  ...[...at("destination", "loaded", "starting", "pulling"), ...at("source", "serving"), LAST_PAGES].map((moment) =>
    worldCell(together(KEEPER, CUT), moment, { mayDoubt: false }, "postcopy"),
  ),
  ...[...at("destination", "loaded", "starting", "pulling"), ...at("source", "serving")].map((moment) =>
    worldCell(together(KEEPER, CUT, DESTINATION_AGENT), moment, { mayDoubt: true }, "postcopy"),
  ),
  worldCell(
    together(READS_ALL, KEEPER, CUT, DESTINATION_AGENT),
    held("destination", "pulling"),
    { mayDoubt: true },
    "postcopy",
  ),
  ...[FIRST_PASS, ...at("destination", "starting", "pulling")].map((moment) =>
    worldCell(together(KEEPER, DESTINATION_AGENT), moment, { mayDoubt: true }, "hybrid"),
  ),
];

const second = (side: AgentKind): Fault => ({ kind: "second agent", side });
const inDoubt = heldBehind("source", "inDoubt", { kind: "cut", seconds: undefined }, held("source", "granting"));

/** A second agent is started beside the first one, which goes on as if nothing had happened. */
const SECONDS: readonly Cell[] = [
  ...[FIRST_PASS, ...at("source", "switching", "granting"), inDoubt].map((moment) =>
    worldCell(second("source"), moment),
  ),
  ...[FIRST_PASS, ...at("destination", "loaded", "owning", "starting")].map((moment) =>
    worldCell(second("destination"), moment, { mayDoubt: false, mustMove: true }),
  ),
  worldCell(second("source"), held("source", "serving"), { mayDoubt: false, mustMove: true }, "postcopy"),
  worldCell(second("destination"), held("destination", "pulling"), { mayDoubt: false, mustMove: true }, "postcopy"),
];

const adopting = heldBehind("destination", "adopting", DESTINATION_AGENT, held("destination", "loaded"));
const withheld = held("destination", "withheld", held("destination", "loaded"));
const withdrawing = heldBehind(
  "source",
  "withdrawing",
  { kind: "cut", seconds: undefined },
  held("source", "switching"),
);

/** Faults while a migration is in a state of doubt. */
const DOUBTS: readonly Cell[] = [
  ...[DESTINATION_AGENT, DESTINATION_QEMU, disk("destination", "full", undefined), hostEnds("source", false)].map(
    (fault) => worldCell(fault, adopting),
  ),
  ...[DESTINATION_AGENT, DESTINATION_QEMU, disk("destination", "full", undefined)].map((fault) =>
    worldCell(fault, withheld, { mayDoubt: false }),
  ),
  // the withheld copy may be older than what ran at the source, so its operator decides; here the operator runs it
  // again
  worldCell(hostEnds("source", false), withheld),
  ...[SOURCE_AGENT, disk("source", "full", undefined), hostEnds("source", true)].map((fault) =>
    // the guest ran on at the source, so the copy whose grant it withdraws is of no use any more
    worldCell(fault, withdrawing, fault.kind === "host" ? { mayLose: true } : {}),
  ),
  worldCell(SOURCE_QEMU, withdrawing, { mayLose: true }),
  ...[
    SOURCE_AGENT,
    DESTINATION_AGENT,
    DESTINATION_QEMU,
    CUT,
    hostEnds("source", false),
    disk("source", "full", undefined),
  ].map((fault) => worldCell(fault, ORPHANED)),
  ...[SOURCE_AGENT, DESTINATION_AGENT, DESTINATION_QEMU, hostEnds("destination", false), hostEnds("source", false)].map(
    (fault) => worldCell(fault, inDoubt),
  ),
];

export const AGENTS: readonly Cell[] = [...KEEPERS, ...SECONDS, ...DOUBTS];
