/**
 * Ferry beside QEMU's own migration: workloads x links x contenders, all on one rig in one run, interleaved.
 *
 *     npm run bench -- [--suite smoke|full|growth] [--workload NAME …] [--link NAME …] [--contender NAME …] [--repetitions N]
 *                      [--json FILE] [--html FILE] [--check] [--resume] [--list]
 */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { readOptions, refuse, wholeNumber } from "./arguments.ts";
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

const USAGE = `npm run bench -- [options]

  --suite NAME        smoke (default, under 5 minutes), full (hours), growth (size and dirty rate)
  --workload NAME     only this one; may be given again
  --link NAME         only this one; may be given again
  --contender NAME    only this one; may be given again
  --repetitions N     of every cell (default 3); a cell that does not converge is not tried again
  --resume            take up the suite's last run where it ended
  --json FILE         write all figures there
  --html FILE         write a report with plots there (default .cache/bench/SUITE.html)
  --check             hold the run against the bars, exit 1 where one is not met
  --list              say what there is, and measure nothing
`;

const SUITES = {
  smoke: {
    workloads: ["idle", "sparse"],
    links: ["1Gbit"],
    contenders: ["qemu precopy", "qemu xbzrle", "ferry", "ferry no delta"],
  },
  full: { workloads: [...WORKLOADS.keys()], links: [...LINKS.keys()], contenders: [...CONTENDERS.keys()] },
  growth: { workloads: [...GROWTH.keys()], links: ["1Gbit"], contenders: ["qemu precopy", "ferry"] },
} as const;

const strings = { type: "string", multiple: true } as const;
const values = readOptions(USAGE, () =>
  parseArgs({
    options: {
      suite: { type: "string", default: "smoke" },
      workload: strings,
      link: strings,
      contender: strings,
      repetitions: { type: "string", default: "3" },
      json: { type: "string" },
      html: { type: "string" },
      check: { type: "boolean", default: false },
      resume: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  }),
);

function list(): void {
  const all = [...WORKLOADS.values(), ...GROWTH.values()];
  process.stdout.write(
    `workloads\n${all.map(({ name, what }) => `  ${name.padEnd(16)} ${what}\n`).join("")}links\n${[...LINKS.keys()].map((name) => `  ${name}\n`).join("")}contenders\n${[...CONTENDERS.keys()].map((name) => `  ${name}\n`).join("")}`,
  );
}

function chosen<Value>(
  axis: string,
  given: readonly string[] | undefined,
  usual: readonly string[],
  all: ReadonlyMap<string, Value>,
): Value[] {
  return (given ?? usual).map((name) => {
    const one = all.get(name);
    if (one === undefined) refuse(USAGE, `There is no ${axis} "${name}": ${[...all.keys()].join(", ")}`);
    return one;
  });
}

function planOf(): Plan {
  const suite = SUITES[values.suite as keyof typeof SUITES];
  if (suite === undefined) refuse(USAGE, `There is no suite "${values.suite}": ${Object.keys(SUITES).join(", ")}`);
  return {
    workloads: chosen("workload", values.workload, suite.workloads, new Map([...WORKLOADS, ...GROWTH])),
    links: chosen("link", values.link, suite.links, LINKS),
    contenders: chosen("contender", values.contender, suite.contenders, CONTENDERS),
    repetitions: wholeNumber(USAGE, "--repetitions", values.repetitions),
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
  const journal = new Journal(`${base}.jsonl`, header(), values.resume);
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
  if (values.check) conclude(verdicts);
}

function conclude(verdicts: ReturnType<typeof judge>): void {
  const missed = verdicts.filter(({ met }) => !met);
  for (const { bar, workload, link, text } of missed)
    process.stdout.write(`Not met: ${bar}, ${workload} over ${link}: ${text}\n`);
  process.stdout.write(`${verdicts.length - missed.length} of ${verdicts.length} bars met\n`);
  if (missed.length > 0 || verdicts.length === 0) process.exitCode = 1;
}

// behind all that it uses: what is declared with const is not there before
if (values.list === true) list();
else await main().catch(gaveUp);
