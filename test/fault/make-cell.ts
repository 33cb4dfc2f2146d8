/**
 * Makes cells whose cost is not said beforehand, but found out after the fault: those of hosts, disks, people,
 * supervisors and states of doubt.
 */
import type { Strategy } from "../../shared/protocol/messages.ts";
import type { Cell } from "./cell.ts";
import { type AgentKind, type Fault, faultName, held, type Moment, momentName } from "./faults.ts";

/** Fields of a cell that differ from those that worldCell() gives it. */
export type Excuses = Partial<Omit<Cell, "fault" | "moment" | "strategy">>;

const LABELS: Readonly<Partial<Record<Strategy, string>>> = { postcopy: "post-copy, ", hybrid: "hybrid, " };

/**
 * Makes such a cell. If a whole copy is left after the fault, in a QEMU that lives, the guest must run in the end: by
 * the agents, or by the word that docs/operations.md names.
 */
export function worldCell(fault: Fault, moment: Moment, excuses: Excuses = {}, strategy?: Strategy): Cell {
  const label = strategy === undefined ? "" : (LABELS[strategy] ?? "");
  const watched = excuses.supervisor === undefined ? "" : `, supervisor ${excuses.supervisor}`;
  return {
    name: `${label}${momentName(moment)}: ${faultName(fault)}${watched}`,
    fault,
    moment,
    limits: "short",
    mayLose: "if no whole copy was left",
    mayDoubt: true,
    ...(strategy === undefined ? {} : { strategy }),
    ...excuses,
  };
}

/** The moments at which the agent of a side is held, one for each state. */
export const at = (side: AgentKind, ...states: string[]): readonly Moment[] => states.map((state) => held(side, state));

export const FIRST_PASS: Moment = { kind: "first pass" };
