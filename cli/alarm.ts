/**
 * The alarm for a guest of which two copies run. This is the worst that can become of a migration, so the alarm comes
 * first and in capitals. It says what runs where, and what to do before anything else. Everything here is pure.
 */
import type { MigrationView } from "../shared/protocol/report.ts";
import { printable } from "./figures.ts";

const MARK = "!!! ";
/** The advice for when the agent names no copy to stop. */
const STOP_EITHER =
  "Send the QMP command stop to the QEMU that has done less since the hand-over; see docs/operations.md, Two copies";

/** The alarms of all migrations whose guest runs twice, each line with its newline; empty when there is none. */
export const alarmText = (views: readonly MigrationView[]): string =>
  views
    .filter(({ status }) => status === "doubled")
    .map((view) => `${alarmLines(view).join("\n")}\n`)
    .join("");

/** The lines of the alarm of one migration, without newlines. */
export function alarmLines(view: MigrationView): readonly string[] {
  const advice = view.error === undefined || view.error.advice === "" ? STOP_EITHER : view.error.advice;
  return [
    `${printable(view.guest)} RUNS AT BOTH HOSTS, and both copies write to its disks (migration ${printable(view.id)})`,
    `one copy runs at ${sourceOf(view)}, the other at ${destinationOf(view)}`,
    `FIRST stop one of the two copies. ${printable(advice)}`,
  ].map((line) => MARK + line);
}

const sourceOf = ({ source }: MigrationView): string =>
  source === undefined ? "the source (the host of this agent)" : `the source ${printable(source)}`;

const destinationOf = ({ source, destination }: MigrationView): string =>
  source === undefined ? `the destination ${printable(destination)}` : "the destination (the host of this agent)";
