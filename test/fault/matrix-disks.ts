/**
 * Cells in which the disk of a host's journals fails, at each state of the hand-over in which a record is written,
 * prepared or read. `full`: writes fail with ENOSPC, for a while or until the cell was inspected. `hanging`: writes
 * wait in the kernel for longer than a hand-over waits for them.
 */
import type { Cell } from "./cell.ts";
import { type AgentKind, type Fault, held } from "./faults.ts";
import { at, worldCell } from "./make-cell.ts";

export const disk = (side: AgentKind, how: "full" | "hanging", seconds: number | undefined): Fault => ({
  kind: "disk",
  side,
  how,
  seconds,
});

/** How long a disk hangs, seconds: longer than a hand-over waits for the journal, which is 5 s (write-in-time.ts). */
const HANGS_SECONDS = 7;
const HANGS_LONG_SECONDS = 30;
/**
 * The longest pause of a guest while a disk hangs, milliseconds: a read, the record and its refusal take up to 5 s
 * each, and a QEMU is asked meanwhile.
 */
const BOUND_MS = 24_000;
const FULL_SECONDS = 3;

export const DISKS: readonly Cell[] = [
  ...at("source", "switching", "recording", "granting", "releasing").map((moment) =>
    worldCell(disk("source", "full", FULL_SECONDS), moment),
  ),
  ...at("source", "negotiating", "copying", "switching", "retiring", "recording", "granting", "releasing").map(
    (moment) => worldCell(disk("source", "full", undefined), moment),
  ),
  ...at("destination", "loading", "loaded", "owning", "starting").map((moment) =>
    worldCell(disk("destination", "full", FULL_SECONDS), moment),
  ),
  ...at("destination", "negotiating", "receiving", "loading", "loaded", "owning", "starting", "arrived").map((moment) =>
    worldCell(disk("destination", "full", undefined), moment),
  ),
  ...at("source", "copying", "switching", "recording", "granting", "releasing").map((moment) =>
    worldCell(disk("source", "hanging", HANGS_SECONDS), moment),
  ),
  ...at("destination", "negotiating", "loading", "loaded", "owning", "starting").map((moment) =>
    worldCell(disk("destination", "hanging", HANGS_SECONDS), moment),
  ),
  // a disk that hangs for longer than all of these waits together does not keep the guest stopped for so long
  worldCell(disk("source", "hanging", HANGS_LONG_SECONDS), held("source", "recording"), { longestPauseMs: BOUND_MS }),
  ...at("destination", "loaded", "owning").map((moment) =>
    worldCell(disk("destination", "hanging", HANGS_LONG_SECONDS), moment, { longestPauseMs: BOUND_MS }),
  ),
  worldCell(
    disk("destination", "hanging", HANGS_LONG_SECONDS),
    held("destination", "loading"),
    { longestPauseMs: BOUND_MS },
    "postcopy",
  ),
  // F1 (docs/decisions/0043): the grant comes by a call, and the refusal cannot be written
  ...at("destination", "loaded", "owning").map((moment) =>
    worldCell({ kind: "all", of: [disk("destination", "full", undefined), { kind: "cut", seconds: 5 }] }, moment),
  ),
  // F13 (docs/decisions/0043): agents start while their disks are full
  ...at("destination", "loaded", "arrived").map((moment) =>
    worldCell(
      { kind: "all", of: [disk("destination", "full", undefined), { kind: "kill", victim: "destination agent" }] },
      moment,
    ),
  ),
  ...at("source", "granting", "releasing").map((moment) =>
    worldCell(
      { kind: "all", of: [disk("source", "full", undefined), { kind: "kill", victim: "source agent" }] },
      moment,
    ),
  ),
  ...at("source", "granting", "serving").map((moment) =>
    worldCell(disk("source", "full", undefined), moment, {}, "postcopy"),
  ),
  ...at("destination", "loading", "loaded", "owning", "pulling").map((moment) =>
    worldCell(disk("destination", "full", undefined), moment, {}, "postcopy"),
  ),
  ...at("destination", "loading", "owning").map((moment) =>
    worldCell(disk("destination", "hanging", HANGS_SECONDS), moment, {}, "postcopy"),
  ),
];
