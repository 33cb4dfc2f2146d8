/**
 * `npm run test:faults` runs the whole matrix, or a random soak. See README.md beside this file.
 *
 *     [--units] [--list] [--only REGEX]
 *     [--units] --soak [--seed N] [--minutes M] [--faults N]
 */
import { parseArgs } from "node:util";
import type { Cell, CellResult } from "./cell.ts";
import { FaultRig } from "./fault-rig.ts";
import { forgetLogs, keepLog } from "./keep-log.ts";
import { MATRIX, possible } from "./matrix.ts";
import { runCell } from "./run-cell.ts";
import { soak } from "./soak.ts";

const DEFAULT_MINUTES = 5;

const { values: given } = parseArgs({
  options: {
    list: { type: "boolean", default: false },
    units: { type: "boolean", default: false },
    only: { type: "string", default: "" },
    soak: { type: "boolean", default: false },
    seed: { type: "string" },
    minutes: { type: "string" },
    faults: { type: "string" },
  },
});

const say = (line: string): void => void process.stdout.write(`${line}\n`);

const row = ({ cell, outcome, seconds, longestPauseMs, violations }: CellResult): string =>
  [
    (violations.length === 0 ? "ok" : "FAILED").padEnd(7),
    cell.name.padEnd(56),
    (outcome === "lost" ? `${outcome} (only copy killed)` : outcome).padEnd(26),
    `${seconds.toFixed(1)} s`.padStart(8),
    `${longestPauseMs.toFixed(0)} ms`.padStart(9),
    ...violations.map((one) => `\n          ${one}`),
  ].join(" ");

async function runMatrix(chosen: readonly Cell[]): Promise<{ ran: number; failed: number }> {
  const on = await FaultRig.open({ units: given.units });
  const cells = chosen.filter((one) => possible(one, on.rig.network.kind));
  let failed = 0;
  try {
    for (const cell of cells) {
      const result = await runCell(on, cell);
      say(row(result));
      if (result.violations.length === 0) continue;
      failed += 1;
      say(`          log: ${keepLog(on, cell.name)}`);
      await on.reset();
    }
  } finally {
    await on.close();
  }
  return { ran: cells.length, failed };
}

const cells = MATRIX.filter(({ name }) => new RegExp(given.only).test(name));
if (given.list) for (const { name } of cells) say(name);
else if (given.soak) {
  if (given.only === "") forgetLogs();
  const minutes = given.minutes === undefined && given.faults === undefined ? DEFAULT_MINUTES : given.minutes;
  const violations = await soak({
    seed: Number(given.seed ?? Date.now() % 1e6),
    minutes: Number(minutes ?? Number.MAX_VALUE),
    faults: Number(given.faults ?? Number.MAX_SAFE_INTEGER),
    units: given.units,
    say,
  });
  process.exitCode = violations > 0 ? 1 : 0;
} else {
  if (given.only === "") forgetLogs();
  const { ran, failed } = await runMatrix(cells);
  say(`${ran} cells, ${failed} failed`);
  process.exitCode = failed > 0 || ran === 0 ? 1 : 0;
}
