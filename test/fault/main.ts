/**
 * npm run test:faults: the whole matrix, or a random soak. See README.md beside this file.
 *   [--list] [--only REGEX]
 *   --soak [--seed N] [--minutes M] [--faults N]
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { type Cell, type CellResult, runCell } from "./cell.ts";
import { FaultRig } from "./fault-rig.ts";
import { MATRIX, possible } from "./matrix.ts";
import { soak } from "./soak.ts";

const LOGS = join(packageRoot(), ".cache", "faults");
const DEFAULT_MINUTES = 5;

const { values: given } = parseArgs({
  options: {
    list: { type: "boolean", default: false },
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
    (cell.mayLose ? `${outcome} (only copy killed)` : outcome).padEnd(26),
    `${seconds.toFixed(1)} s`.padStart(8),
    `${longestPauseMs.toFixed(0)} ms`.padStart(9),
    ...violations.map((one) => `\n          ${one}`),
  ].join(" ");

/** The programs' output, for whoever wants to know why. */
export function keepLog(on: FaultRig, name: string): string {
  mkdirSync(LOGS, { recursive: true });
  const path = join(LOGS, `${name.replace(/\W+/g, "-")}.log`);
  writeFileSync(path, on.logs());
  return relative(packageRoot(), path);
}

async function runMatrix(cells: readonly Cell[]): Promise<number> {
  const on = await FaultRig.open();
  let failed = 0;
  try {
    for (const cell of cells.filter((one) => possible(one, on.rig.network.kind))) {
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
  return failed;
}

const cells = MATRIX.filter(({ name }) => new RegExp(given.only).test(name));
if (given.list) for (const { name } of cells) say(name);
else if (given.soak) {
  rmSync(LOGS, { recursive: true, force: true });
  const minutes = given.minutes === undefined && given.faults === undefined ? DEFAULT_MINUTES : given.minutes;
  const violations = await soak({
    seed: Number(given.seed ?? Date.now() % 1e6),
    minutes: Number(minutes ?? Number.MAX_VALUE),
    faults: Number(given.faults ?? Number.MAX_SAFE_INTEGER),
    say,
    keepLog,
  });
  process.exitCode = violations > 0 ? 1 : 0;
} else {
  rmSync(LOGS, { recursive: true, force: true });
  const failed = await runMatrix(cells);
  say(`${cells.length} cells, ${failed} failed`);
  process.exitCode = failed > 0 || cells.length === 0 ? 1 : 0;
}
