/** `ferry heatmap`: shows where a guest writes, as its running migration has seen it. */
import type { Command } from "commander";
import { MigrationFault } from "../../shared/fault.ts";
import { HEAT_CELLS_MAX } from "../../shared/protocol/report.ts";
import { argument, type Run } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { jsonLine } from "../json.ts";
import { heatMapText } from "../tables.ts";

export function addHeatMap(program: Command, run: Run): void {
  program
    .command("heatmap")
    .argument("<guest|id>", "guest with a migration under way, or migration")
    .option("--cells <count>", "cells for each block of memory", argument(parseCells), 256)
    .description("show where a guest writes, as its running migration has seen it")
    .action((idOrGuest: string, { cells }: { cells: number }, command: Command) =>
      run(command, async ({ client, options, terminal }) => {
        const blocks = await client.heatMap(idOrGuest, cells);
        terminal.out(options.json ? blocks.map(jsonLine).join("") : heatMapText(blocks, terminal.columns()));
        return EXIT.ok;
      }),
    );
}

function parseCells(text: string): number {
  const cells = Number(text);
  if (!/^\d{1,6}$/.test(text) || cells < 1 || cells > HEAT_CELLS_MAX)
    throw new MigrationFault("invalid-argument", `"${text}" is not a number from 1 to ${HEAT_CELLS_MAX}`);
  return cells;
}
