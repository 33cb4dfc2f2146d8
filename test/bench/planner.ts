/**
 * Compares predictions with what then happened. Each workload over each link is observed once (`ferry plan`), and then
 * moved with each strategy. Prints a table and, in the last line, the median and the 90th percentile of the errors of
 * total time. Exits with 1 if one of them is above its bound, or if a guest found a word of its memory wrong.
 *
 *     npm run bench:planner [-- --workload NAME] [--link 1Gbit|100Mbit] [--json FILE]
 */
import { appendFileSync } from "node:fs";
import { Option } from "commander";
import type { Strategy } from "../../shared/protocol/messages.ts";
import type { ObservationView, PlanView, PredictionView } from "../../shared/protocol/plan-view.ts";
import type { MigrationView } from "../../shared/protocol/report.ts";
import { type HostAgents, startAgents } from "../support/agents.ts";
import { ferryJson, migrate } from "../support/ferry-json.ts";
import { guestDefinition, type Workload } from "../support/guest.ts";
import { Rig, type RigHost } from "../support/rig.ts";
import type { Beat } from "../support/serial.ts";
import { benchmark } from "./arguments.ts";

const LINKS = { "1Gbit": 1e9, "100Mbit": 1e8 } as const;
const WORKLOADS: Readonly<Record<string, Workload>> = {
  idle: { regionMiB: 16, fillMiB: 256, rate: 0 },
  // the demo's workload
  "sparse writes": { regionMiB: 128, rate: 200e6, words: 4 },
  "dense writes": { regionMiB: 64, rate: 40e6, words: 256 },
  "Zipf writes": { regionMiB: 128, rate: 50e6, words: 64, order: "zipf" },
  "incompressible writes": { regionMiB: 64, rate: 20e6, mode: "scramble" },
  "CPU-bound": { regionMiB: 2, fillMiB: 128, rate: 400e6, words: 16 },
};
const values = benchmark("bench:planner")
  .addOption(new Option("--workload <name>", "only this one").choices(Object.keys(WORKLOADS)))
  .addOption(new Option("--link <name>", "only this one").choices(Object.keys(LINKS)))
  .option("--json <file>", "add all figures there, a line for each migration")
  .parse()
  .opts<{ workload?: string; link?: string; json?: string }>();
const ORDER: readonly Strategy[] = ["stop-and-copy", "precopy", "postcopy", "hybrid"];
const BEATS = { timeoutMs: 180_000 };
const SETTLE_BEATS = 30;
/** The deadline of precopy, for guests with which it does not converge. */
const GIVES_UP_SECONDS = 60;
/** The bounds of the median and of the 90th percentile of the errors, as fractions of the time that was taken. */
const MEDIAN_MOST = 0.1;
const P90_MOST = 0.25;
/** A prediction is wrong when it leads to a strategy that takes more than this many times as long as the quickest. */
const WRONG = 1.15;

interface Run {
  readonly workload: string;
  readonly link: string;
  readonly strategy: Strategy;
  readonly predicted: PredictionView | undefined;
  /** Missing if the migration was given up because it did not converge. */
  readonly totalSeconds?: number;
  readonly downtimeMs?: number;
  readonly bytes?: number;
}

const runs: Run[] = [];
const slowDowns: number[] = [];
const costs: ObservationView["cost"][] = [];
/** How many words of their memory the guests found wrong. */
let wrongWords = 0;
const NAME = "planned";
const rig = await Rig.open();
try {
  const a = await startAgents(rig, rig.a, { rehearsed: true });
  const b = await startAgents(rig, rig.b, { rehearsed: true });
  for (const [workload, options] of Object.entries(WORKLOADS))
    if (values.workload === undefined || values.workload === workload) await runWorkload(workload, options, a, b);
} finally {
  await rig.close();
}
await rig.assertNothingLeft();
conclude();

async function runWorkload(workload: string, options: Workload, a: HostAgents, b: HostAgents): Promise<void> {
  const definition = guestDefinition({ name: NAME, memoryMiB: 512, workload: options });
  rig.writeDefinition(definition);
  await rig.network.setRate(1e9);
  await rig.startGuest(rig.a, definition);
  const on = { here: { host: rig.a, agents: a }, there: { host: rig.b, agents: b } };
  for (const [link, bitsPerSecond] of Object.entries(LINKS)) {
    if (values.link !== undefined && values.link !== link) continue;
    await rig.network.setRate(bitsPerSecond);
    await settled(on.here.host);
    const plan = await look(on.here.agents, on.there.agents, on.here.host, options.rate === 0);
    process.stdout.write(`${workload}, ${link}: recommended ${plan.recommended}: ${plan.reason}\n`);
    for (const strategy of ORDER) {
      await settled(on.here.host);
      const limits = strategy === "precopy" ? ["--deadline", `${GIVES_UP_SECONDS}s`] : [];
      const { answer } = await migrate(rig, on.here.agents, on.there.agents, NAME, ["--strategy", strategy, ...limits]);
      const moved = answer.result?.completed === true;
      if (!moved && answer.error?.code !== "deadline") throw new Error(JSON.stringify(answer.error));
      note({
        workload,
        link,
        strategy,
        predicted: plan.predictions?.find((one) => one.strategy === strategy),
        ...took(answer),
      });
      if (moved) [on.here, on.there] = [on.there, on.here];
    }
  }
  wrongWords += (await rig.serial(on.here.host, NAME).waitForBeats(1, BEATS)).errors;
  await rig.network.setRate(1e9);
  const monitor = await rig.observe(on.here.host, NAME);
  await monitor.execute("quit");
  await monitor.closed;
}

async function settled(host: RigHost): Promise<void> {
  await rig.serial(host, NAME).waitForBeats(SETTLE_BEATS, BEATS);
}

/** Makes a plan of the migration, and notes how much less work the guest did meanwhile, by the guest's own count. */
async function look(from: HostAgents, to: HostAgents, host: RigHost, idle: boolean): Promise<PlanView> {
  const serial = rig.serial(host, NAME);
  const before = pagesASecond(serial.beats().slice(-SETTLE_BEATS + 5));
  const seen = serial.beats().length;
  const { answer } = await ferryJson<PlanView>(rig, from, ["plan", NAME, "--to", to.destinationAddress]);
  if (!idle) slowDowns.push(1 - pagesASecond(serial.beats().slice(seen)) / before);
  if (answer.observation !== undefined) costs.push(answer.observation.cost);
  if (answer.predictions === undefined) throw new Error(`no predictions: ${JSON.stringify(answer)}`);
  return answer;
}

function pagesASecond(beats: readonly Beat[]): number {
  const [first, last] = [beats[0], beats.at(-1)];
  if (first === undefined || last === undefined) return Number.NaN;
  return (1e6 * (last.pages - first.pages)) / (last.monoUs - first.monoUs);
}

function took({ result }: Pick<MigrationView, "result">): Pick<Run, "totalSeconds" | "downtimeMs" | "bytes"> {
  if (result?.completed !== true) return {};
  return { totalSeconds: result.totalSeconds, downtimeMs: result.downtime.totalMs, bytes: result.bytes.total };
}

/**
 * The error of the predicted total time, as a fraction of the time that was taken.
 * @returns undefined if the migration came to no end as predicted; infinity if only one of the two has an end
 */
function errorOf({ predicted, totalSeconds }: Run): number | undefined {
  const expected = predicted?.totalSeconds?.expected;
  if (expected === undefined || totalSeconds === undefined)
    return expected === undefined && totalSeconds === undefined ? undefined : Number.POSITIVE_INFINITY;
  return Math.abs(expected - totalSeconds) / totalSeconds;
}

function note(run: Run): void {
  runs.push(run);
  if (values.json !== undefined) appendFileSync(values.json, `${JSON.stringify(run)}\n`);
  const { workload, link, strategy, predicted, totalSeconds, downtimeMs = 0, bytes = 0 } = run;
  const error = errorOf(run);
  const cells = [
    workload.padEnd(22),
    link.padEnd(8),
    strategy.padEnd(14),
    `${seconds(predicted?.totalSeconds?.expected)} predicted`,
    `${seconds(totalSeconds)} taken`,
    (error === undefined ? "agreed" : `${(100 * error).toFixed(0)} %`).padStart(7),
    `down ${(predicted?.downtimeMs?.expected ?? 0).toFixed(0).padStart(6)} / ${downtimeMs.toFixed(0).padStart(6)} ms`,
    `sent ${((predicted?.bytes?.expected ?? 0) / 1e6).toFixed(0).padStart(4)} / ${(bytes / 1e6).toFixed(0).padStart(4)} MB`,
  ];
  process.stdout.write(`${cells.join("  ")}\n`);
}

function seconds(value: number | undefined): string {
  return value === undefined ? "no end" : `${value.toFixed(2).padStart(6)} s`;
}

/**
 * Finds the cases in which the live strategy that was predicted to be the quickest took much longer than the quickest
 * did.
 */
function wrongOnes(): string[] {
  const wrong: string[] = [];
  for (const { workload, link } of runs.filter(({ strategy }) => strategy === "precopy")) {
    const live = runs.filter(
      (run) => run.workload === workload && run.link === link && run.strategy !== "stop-and-copy",
    );
    const by = (of: (run: Run) => number | undefined): Run | undefined =>
      [...live].sort(
        (one, other) => (of(one) ?? Number.POSITIVE_INFINITY) - (of(other) ?? Number.POSITIVE_INFINITY),
      )[0];
    const predicted = by(({ predicted }) => predicted?.totalSeconds?.expected);
    const quickest = by(({ totalSeconds }) => totalSeconds);
    const worse = (predicted?.totalSeconds ?? Number.POSITIVE_INFINITY) / (quickest?.totalSeconds ?? 1);
    if (worse > WRONG)
      wrong.push(`${workload}, ${link}: ${predicted?.strategy}, ${worse.toFixed(2)} x ${quickest?.strategy}`);
  }
  return wrong;
}

function middle(figures: readonly number[]): number {
  return [...figures].sort((one, other) => one - other)[Math.floor(figures.length / 2)] ?? 0;
}

function conclude(): void {
  const errors = runs.map(errorOf).filter((error) => error !== undefined);
  errors.sort((one, other) => one - other);
  const at = (part: number): number => errors[Math.floor(part * (errors.length - 1))] ?? Number.NaN;
  const [median, p90] = [at(0.5), at(0.9)];
  const wrong = wrongOnes();
  process.stdout.write(
    `While a plan was made, a busy guest did ${(100 * middle(slowDowns)).toFixed(1)} % less (median of ${slowDowns.length}); looking took ${middle(costs.map((cost) => cost.seconds)).toFixed(1)} s, ${middle(costs.map((cost) => cost.agentCpuSeconds)).toFixed(2)} CPU seconds of the agent, ${middle(costs.map((cost) => cost.qemuCpuSeconds ?? 0)).toFixed(2)} of QEMU\n`,
  );
  process.stdout.write(`The guests' own checks of their memory found ${wrongWords} errors\n`);
  if (wrongWords > 0) process.exitCode = 1;
  process.stdout.write(`Wrong recommendations: ${wrong.length}${wrong.map((one) => `\n  ${one}`).join("")}\n`);
  if (median > MEDIAN_MOST) process.stdout.write(`The median is above ${100 * MEDIAN_MOST} %\n`);
  if (p90 > P90_MOST) process.stdout.write(`The 90th percentile is above ${100 * P90_MOST} %\n`);
  process.stdout.write(
    `Predicted total time, error: median ${(100 * median).toFixed(1)} %, p90 ${(100 * p90).toFixed(1)} %, of ${errors.length} migrations\n`,
  );
  if (!(median <= MEDIAN_MOST && p90 <= P90_MOST)) process.exitCode = 1;
}
