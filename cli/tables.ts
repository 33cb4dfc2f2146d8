/**
 * Tables for people: of guests, of migrations, and of heat. The table of a plan is in plan-text.ts. Everything here is
 * pure.
 */
import type { GuestView, HeatMapBlock, MigrationView } from "../shared/protocol/report.ts";
import { shortDigest } from "../shared/runtime/guest/guest-definition.ts";
import { alarmText } from "./alarm.ts";
import { blockFor, durationText, memoryText, percentText, printable } from "./figures.ts";
import { statusText } from "./progress-bar.ts";

/** Makes a table whose columns are as wide as their widest cell. The last column is not padded. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd();
  return `${all.map(line).join("\n")}\n`;
}

export function guestsText(guests: readonly GuestView[]): string {
  if (guests.length === 0)
    return "No guest is defined on this host; put definitions into the directory of the setting guests.directory\n";
  return table(
    ["GUEST", "STATE", "QEMU", "MACHINE", "DEFINITION", "MIGRATION", "DETAIL"],
    guests.map(({ name, state, qemuVersion, machineType, definitionDigest, migrationId, detail }) =>
      [name, state, qemuVersion, machineType, shortDigest(definitionDigest), migrationId, detail].map(printable),
    ),
  );
}

export function migrationsText(views: readonly MigrationView[]): string {
  if (views.length === 0) return "This agent knows of no migration\n";
  return alarmText(views) + migrationsTable(views);
}

function migrationsTable(views: readonly MigrationView[]): string {
  return table(
    ["MIGRATION", "GUEST", "PEER", "STATUS", "STARTED", "TOOK", "COPIED"],
    views.map((view) => [
      printable(view.id),
      printable(view.guest),
      view.source === undefined ? `to ${printable(view.destination)}` : `from ${printable(view.source)}`,
      statusText(view),
      // `startedAtMs` is 0 where the record cannot be read, so that nobody knows when the migration began
      view.startedAtMs === 0 ? "" : new Date(view.startedAtMs).toISOString(),
      durationText(view.progress.elapsedSeconds * 1000),
      view.source === undefined ? percentText(view.progress.firstPassFraction) : "",
    ]),
  );
}

const PAGE_BYTES = 4096;
const INDENT = "  ";

/** Shows each block as rows with one character for each cell, from ▁ for cold to █ for hot. */
export function heatMapText(blocks: readonly HeatMapBlock[], columns: number): string {
  if (blocks.length === 0) return "Nothing was seen yet\n";
  const width = Math.max(8, columns - INDENT.length);
  const lines: string[] = [];
  for (const block of blocks) {
    const cell = memoryText(block.pagesPerCell * PAGE_BYTES);
    lines.push(`${printable(block.name)}: ${block.cells.length} cells of ${cell}, ▁ cold to █ hot`);
    const text = Array.from(block.cells, (heat) => blockFor(heat / 255));
    for (let at = 0; at < text.length; at += width) lines.push(INDENT + text.slice(at, at + width).join(""));
  }
  return `${lines.join("\n")}\n`;
}
