/**
 * Cells in which a whole host ends: both agents, the guest's QEMU and the keeper of its monitor at once. A host that
 * returns settles what is proven. A host that does not return leaves the guest to the operator of the other host, and
 * comes back when all is over.
 */
import type { Cell } from "./cell.ts";
import { type AgentKind, type Fault, held, heldBehind, type Moment } from "./faults.ts";
import { at, type Excuses, FIRST_PASS, worldCell } from "./make-cell.ts";

export const hostEnds = (side: AgentKind, returns: boolean): Fault => ({ kind: "host", side, returns });

const both = (side: AgentKind, moments: readonly Moment[], excuses: Excuses = {}): readonly Cell[] =>
  moments.flatMap((moment) => [true, false].map((returns) => worldCell(hostEnds(side, returns), moment, excuses)));

const postcopy = (side: AgentKind, moments: readonly Moment[], excuses: Excuses = {}): readonly Cell[] =>
  moments.flatMap((moment) =>
    [true, false].map((returns) => worldCell(hostEnds(side, returns), moment, excuses, "postcopy")),
  );

/**
 * The moment at which a source is orphaned: its agent starts again and finds its QEMU gone in the middle of the
 * switchover, so only an operator can tell what the guest did last.
 */
export const ORPHANED: Moment = heldBehind("source", "orphaned", hostEnds("source", true), held("source", "retiring"));

export const HOSTS: readonly Cell[] = [
  ...both("source", [
    FIRST_PASS,
    ...at("source", "switching", "retiring", "recording", "granting", "releasing"),
    ...at("destination", "loaded", "starting"),
  ]),
  ...both("destination", [
    FIRST_PASS,
    ...at("destination", "loading", "loaded", "owning", "starting", "arrived"),
    ...at("source", "granting"),
  ]),
  // the guest has its devices at one host and its pages at the other: the end of the source takes pages with it
  ...postcopy("source", at("source", "granting", "serving"), { mayLose: true, strands: true }),
  ...postcopy("destination", [...at("source", "granting", "serving"), ...at("destination", "starting", "pulling")]),
];
