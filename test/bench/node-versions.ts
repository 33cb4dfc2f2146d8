/**
 * Compares versions of Node on the page path: runs the micro-benchmarks with each Node in turns.
 *
 *     npm run bench:node-versions -- --node PROGRAM… [OPTIONS]
 *
 *     --node PROGRAM…   the Nodes; all others are compared with the oldest one
 *     --turns N         how often each Node has its turn (5)
 *     --cases REGEX…    cases of bench:micro; one REGEX is one turn of a Node ("^classify", "^pipeline", "^link")
 *     --json FILE       every case of every turn, a line each
 *
 * Each Node has the options of the agents' first line. The order of the Nodes is another one in each turn, so that what
 * else the machine does affects all alike. The table has the CPU seconds per GB of each case: the lowest of all turns,
 * and in brackets the median. "Beside" is the median, over the turns, of the ratio within a turn.
 */
import { execFileSync } from "node:child_process";
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { argument } from "../../cli/context.ts";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { NODE_OPTIONS } from "../support/agents.ts";
import { benchmark, wholeNumber } from "./arguments.ts";
import { type Measurement, median } from "./measure.ts";

const options = benchmark("bench:node-versions")
  .requiredOption("--node <program...>", "the Nodes")
  .option("--turns <n>", "of each Node", argument(wholeNumber), 5)
  .option("--cases <regex...>", "of bench:micro", ["^classify", "^pipeline", "^link"])
  .option("--json <file>", "every case of every turn")
  .parse()
  .opts<{ node: readonly string[]; turns: number; cases: readonly string[]; json?: string }>();

interface Noted extends Measurement {
  readonly node: string;
  readonly turn: number;
}

const noted: Noted[] = [];

function measure(program: string, cases: string, turn: number): void {
  const node = execFileSync(program, ["--version"], { encoding: "utf8" }).trim();
  const micro = join(packageRoot(), "dist/test/bench/micro.js");
  const told = execFileSync(program, [...NODE_OPTIONS, "--expose-gc", micro, "--json", cases], {
    encoding: "utf8",
    env: { ...process.env, MALLOC_ARENA_MAX: "2" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  for (const line of told.split("\n").filter((one) => one !== "")) {
    const one: Noted = { ...(JSON.parse(line) as Measurement), node, turn };
    noted.push(one);
    if (options.json !== undefined) appendFileSync(options.json, `${JSON.stringify(one)}\n`);
  }
  process.stderr.write(`turn ${turn + 1} of ${options.turns}: ${node} ${cases}\n`);
}

const cost = (one: Measurement): number => one.cpuSecondsPerGigabyte ?? Number.NaN;

/** Computes the ratio of two Nodes within each turn of a case. */
function ratios(all: readonly Noted[], node: string, first: string): number[] {
  const of = (name: string): Noted[] => all.filter((one) => one.node === name);
  return of(node).flatMap((one) => {
    const other = of(first).find(({ turn }) => turn === one.turn);
    return other === undefined ? [] : [cost(one) / cost(other)];
  });
}

function table(): string {
  const nodes = [...new Set(noted.map(({ node }) => node))].sort();
  const [first = "", ...others] = nodes;
  const rows = [
    ["case, CPU s/GB", ...nodes, ...others.map((node) => `${node} beside ${first}`)],
    Array.from({ length: nodes.length + others.length + 1 }, () => "---"),
  ];
  for (const name of new Set(noted.map((one) => `${one.group}: ${one.name}`))) {
    const all = noted.filter((one) => `${one.group}: ${one.name}` === name);
    const costs = nodes.map((node) => all.filter((one) => one.node === node).map(cost));
    rows.push([
      name,
      ...costs.map((some) => `${Math.min(...some).toFixed(3)} (${median(some).toFixed(3)})`),
      ...others.map((node) => median(ratios(all, node, first)).toFixed(2)),
    ]);
  }
  return rows.map((row) => `| ${row.join(" | ")} |\n`).join("");
}

for (let turn = 0; turn < options.turns; turn++)
  for (const cases of options.cases)
    for (let i = 0; i < options.node.length; i++)
      measure(options.node[(i + turn) % options.node.length] ?? process.execPath, cases, turn);
process.stdout.write(table());
