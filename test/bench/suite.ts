/**
 * Compares Ferry with QEMU's own migration: measures every combination of a workload, a link and a contender in one
 * run, in which the contenders take turns. test/bench/README.md says what is measured.
 *
 *     npm run bench -- [--suite smoke|full|growth] [--workload NAME …] [--link NAME …] [--contender NAME …]
 *                      [--repetitions N] [--json FILE] [--html FILE] [--check] [--resume] [--list]
 */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { Option } from "commander";
import { argument } from "../../cli/context.ts";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { benchmark, wholeNumber } from "./arguments.ts";
import { judge } from "./suite/bars.ts";
import { CONTENDERS } from "./suite/contenders.ts";
import { Journal } from "./suite/journal.ts";
import { LINKS } from "./suite/links.ts";
import { reportOf } from "./suite/report.ts";
import { type Plan, runPlan } from "./suite/runner.ts";
import type { HeaderLine } from "./suite/sample.ts";
import { limitsOf, summarise } from "./suite/summary.ts";
import { tableOf } from "./suite/table.ts";
import { GROWTH, WORKLOADS } from "./suite/workloads.ts";

const SUITES = {
  smoke: {
    workloads: ["idle", "sparse"],
    links: ["1Gbit"],
    contenders: ["qemu precopy", "qemu xbzrle", "ferry", "ferry no delta"],
  },
  full: { workloads: [...WORKLOADS.keys()], links: [...LINKS.keys()], contenders: [...CONTENDERS.keys()] },
  growth: { workloads: [...GROWTH.keys()], links: ["1Gbit"], contenders: ["qemu precopy", "ferry"] },
} as const;

interface Values {
  readonly suite: keyof typeof SUITES;
  readonly workload?: readonly string[];
  readonly link?: readonly string[];
  readonly contender?: readonly string[];
  readonly repetitions: number;
  readonly resume?: boolean;
  readonly json?: string;
  readonly html?: string;
  readonly check?: boolean;
  readonly list?: boolean;
}

const someOf = (flag: string, all: ReadonlyMap<string, unknown>): Option =>
  new Option(`--${flag} <name...>`, "only this one; may be given again (--list names them)").choices([...all.keys()]);

const values = benchmark("bench")
  .addOption(
    new Option("--suite <name>", "smoke: under 5 minutes, full: hours, growth: size and dirty rate")
      .choices(Object.keys(SUITES))
      .default("smoke"),
  )
  .addOption(someOf("workload", new Map([...WORKLOADS, ...GROWTH])))
  .addOption(someOf("link", LINKS))
  .addOption(someOf("contender", CONTENDERS))
  .option("--repetitions <n>", "of every cell; one that does not converge is not tried again", argument(wholeNumber), 3)
  .option("--resume", "take up the suite's last run where it ended")
  .option("--json <file>", "write all figures there")
  .option("--html <file>", "write a report with plots there (default: .cache/bench/SUITE.html)")
  .option("--check", "hold the run against the bars, exit 1 where one is not met")
  .option("--list", "say what there is, and measure nothing")
  .parse()
  .opts<Values>();

function list(): void {
  const all = [...WORKLOADS.values(), ...GROWTH.values()];
  process.stdout.write(
    `workloads\n${all.map(({ name, what }) => `  ${name.padEnd(16)} ${what}\n`).join("")}links\n${[...LINKS.keys()].map((name) => `  ${name}\n`).join("")}contenders\n${[...CONTENDERS.keys()].map((name) => `  ${name}\n`).join("")}`,
  );
}

const chosen = <Value>(all: ReadonlyMap<string, Value>, names: readonly string[]): Value[] =>
  names.map((name) => all.get(name)!);

function planOf(): Plan {
  const { workloads, links, contenders } = SUITES[values.suite];
  return {
    workloads: chosen(new Map([...WORKLOADS, ...GROWTH]), values.workload ?? workloads),
    links: chosen(LINKS, values.link ?? links),
    contenders: chosen(CONTENDERS, values.contender ?? contenders),
    repetitions: values.repetitions,
  };
}

const firstLine = (program: string, ...args: string[]): string => {
  try {
    return (
      execFileSync(program, args, { cwd: packageRoot(), encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).split(
        "\n",
      )[0] ?? ""
    );
  } catch {
    return "unknown";
  }
};

function header(): HeaderLine {
  const processors = cpus();
  return {
    kind: "header",
    suite: values.suite,
    startedAt: new Date().toISOString(),
    commit: firstLine("git", "describe", "--always", "--dirty"),
    processor: processors[0]?.model.trim() ?? "unknown",
    processors: processors.length,
    qemu: firstLine("qemu-system-x86_64", "--version").replace("QEMU emulator version ", ""),
    accelerator: process.env.FERRY_ACCEL ?? "tcg",
  };
}

function gaveUp(thrown: unknown): void {
  process.stderr.write(`${thrown instanceof Error ? thrown.message : String(thrown)}\n`);
  process.stderr.write("The run ended here; with --resume it is taken up behind the last migration that was noted\n");
  process.exitCode = 1;
}

async function main(): Promise<void> {
  const plan = planOf();
  const base = join(packageRoot(), ".cache", "bench", values.suite);
  const journal = new Journal(`${base}.jsonl`, header(), values.resume === true);
  process.stderr.write(`Every migration is noted in ${journal.path}; --resume takes the run up from there\n`);
  await runPlan(plan, journal);
  const { lines } = journal;
  process.stdout.write(tableOf(lines));
  const verdicts = judge(lines);
  const cells = summarise(lines);
  if (values.json !== undefined)
    writeFileSync(
      values.json,
      JSON.stringify({ header: journal.header, limits: [...limitsOf(lines).values()], cells, verdicts }, undefined, 1),
    );
  const html = values.html ?? `${base}.html`;
  writeFileSync(html, reportOf(lines, verdicts));
  const wrongWords = lines.reduce((sum, line) => sum + (line.kind === "check" ? line.wrongWords : 0), 0);
  process.stdout.write(`The guests' own checks of their memory found ${wrongWords} errors\nReport: ${html}\n`);
  if (wrongWords > 0) process.exitCode = 1;
  if (values.check === true) conclude(verdicts);
}

function conclude(verdicts: ReturnType<typeof judge>): void {
  const missed = verdicts.filter(({ met }) => !met);
  for (const { bar, workload, link, text } of missed)
    process.stdout.write(`Not met: ${bar}, ${workload} over ${link}: ${text}\n`);
  process.stdout.write(`${verdicts.length - missed.length} of ${verdicts.length} bars met\n`);
  if (missed.length > 0 || verdicts.length === 0) process.exitCode = 1;
}

// this comes after all that it uses, since a const does not exist before its declaration has run
if (values.list === true) list();
else await main().catch(gaveUp);
