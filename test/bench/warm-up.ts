/**
 * Measures what the agents' warm-up brings: the same guest is moved by agents that have warmed up and by agents that
 * have not, in turns.
 *
 *     npm run bench:warm-up [-- --pairs N] [--migrations N] [--json FILE]
 *
 * A pair is one life of all agents with the warm-up and one without it; which comes first changes from pair to pair. In
 * each life the guest is moved to and fro, so that every agent takes part in `--migrations` migrations in each of its
 * two roles. The table has, for the first, second and last of them, the medians of both kinds, and the median of the
 * ratios within the pairs: below 1, agents that have warmed up are better.
 */
import { appendFileSync } from "node:fs";
import { argument } from "../../cli/context.ts";
import { type HostAgents, startAgents } from "../support/agents.ts";
import { migrate, requireMoved } from "../support/ferry-json.ts";
import { foundGuest } from "../support/found-guest.ts";
import { type GuestOptions, guestDefinition } from "../support/guest.ts";
import { Rig, type RigGuest, type RigHost } from "../support/rig.ts";
import { joinedBeats } from "../support/serial.ts";
import { benchmark, wholeNumber } from "./arguments.ts";
import { median } from "./measure.ts";

const values = benchmark("bench:warm-up")
  .option("--pairs <n>", "lives of agents with the warm-up, and as many without", argument(wholeNumber), 5)
  .option("--migrations <n>", "of each agent in each of its roles", argument(wholeNumber), 5)
  .option("--json <file>", "write every migration there, a line each")
  .parse()
  .opts<{ pairs: number; migrations: number; json?: string }>();

const NAME = "busy";
const GUEST: GuestOptions = { name: NAME, workload: { order: "walk" } };
const STRATEGIES = ["precopy", "postcopy"] as const;
const BEATS = { timeoutMs: 120_000 };
const SETTLE_BEATS = 10;
const LINK = { bitsPerSecond: 1e9 };

interface Noted {
  readonly pair: number;
  readonly strategy: (typeof STRATEGIES)[number];
  readonly warm: boolean;
  /** Which migration in the life of its two agents it was: 1, 2, 3 … */
  readonly ordinal: number;
  /** 0 on the way there, 1 on the way back. Each way has two agents of its own. */
  readonly way: number;
  readonly totalSeconds: number;
  readonly downtimeMs: number;
  /** The longest time between two turns of the guest's loop, milliseconds. */
  readonly stallMs: number;
  readonly agentsCpuSeconds: number;
}

const noted: Noted[] = [];
const rig = await Rig.open(LINK);
try {
  const definition = guestDefinition(GUEST);
  rig.writeDefinition(definition);
  let guest = await rig.startGuest(rig.a, definition);
  for (let pair = 0; pair < values.pairs; pair++)
    for (const strategy of STRATEGIES)
      for (const warm of pair % 2 === 0 ? [true, false] : [false, true])
        guest = await life(guest, pair, strategy, warm);
  const { errors } = await guest.serial.waitForBeats(1, BEATS);
  say();
  process.stdout.write(`The guest's own check of its memory found ${errors} errors\n`);
  if (errors > 0) process.exitCode = 1;
} finally {
  await rig.close();
}

/** Starts all agents, moves the guest to and fro, and ends the agents. @returns the guest where it is then */
async function life(
  begun: RigGuest,
  pair: number,
  strategy: (typeof STRATEGIES)[number],
  warm: boolean,
): Promise<RigGuest> {
  const [a, b] = await Promise.all([
    startAgents(rig, rig.a, { rehearsed: warm }),
    startAgents(rig, rig.b, { rehearsed: warm }),
  ]);
  let guest = begun;
  for (let turn = 0; turn < 2 * values.migrations; turn++) {
    await guest.serial.waitForBeats(SETTLE_BEATS, BEATS);
    const from = beats().at(-1)?.beat ?? 0;
    const to = rig.other(guest.host);
    const [source, destination] = agentsOf(guest.host, a, b);
    const { result } = requireMoved(await migrate(rig, source, destination, NAME, ["--strategy", strategy]));
    guest = await foundGuest(rig, to, NAME);
    await guest.serial.waitForBeats(SETTLE_BEATS, BEATS);
    const gaps = beats().flatMap(({ beat, longestGapUs }) => (beat > from ? [longestGapUs / 1e3] : []));
    const one: Noted = {
      pair,
      strategy,
      warm,
      ordinal: 1 + (turn >> 1),
      way: turn & 1,
      totalSeconds: result.totalSeconds,
      downtimeMs: result.downtime.totalMs,
      stallMs: Math.max(...gaps),
      agentsCpuSeconds: result.sourceAgentCpuSeconds + result.destinationAgentCpuSeconds,
    };
    noted.push(one);
    if (values.json !== undefined) appendFileSync(values.json, `${JSON.stringify(one)}\n`);
  }
  process.stderr.write(`pair ${pair + 1} of ${values.pairs}: ${strategy}, ${warm ? "warm" : "cold"}\n`);
  for (const { source, destination } of [a, b]) await Promise.all([source.stop(), destination.stop()]);
  return guest;
}

/** The agents of the host where the guest is, and those of the other host. */
function agentsOf(host: RigHost, a: HostAgents, b: HostAgents): readonly [HostAgents, HostAgents] {
  return host === rig.a ? [a, b] : [b, a];
}

function beats() {
  return joinedBeats([rig.serial(rig.a, NAME), rig.serial(rig.b, NAME)]);
}

function say(): void {
  const keys = ["totalSeconds", "stallMs", "downtimeMs", "agentsCpuSeconds"] as const;
  const rows = [
    ["migration", ...keys.map((key) => `${key}: warm, cold, ratio`)],
    ["---", ...keys.map(() => "---")],
  ];
  for (const strategy of STRATEGIES)
    for (const ordinal of new Set([1, Math.min(2, values.migrations), values.migrations])) {
      const all = noted.filter((one) => one.strategy === strategy && one.ordinal === ordinal);
      const cells = keys.map((key) => {
        const [warm, cold] = [true, false].map((kind) =>
          median(all.filter((one) => one.warm === kind).map((one) => one[key])),
        );
        return `${digits(warm)}, ${digits(cold)}, ${digits(median(ratios(all, key)))}`;
      });
      rows.push([`${strategy}, ${ordinal}`, ...cells]);
    }
  process.stdout.write(rows.map((row) => `| ${row.join(" | ")} |\n`).join(""));
}

function digits(value: number | undefined): string {
  return value === undefined ? "–" : value.toPrecision(3);
}

/** Computes the ratios of warm to cold within the pairs, one for each way. */
function ratios(all: readonly Noted[], key: "totalSeconds" | "stallMs" | "downtimeMs" | "agentsCpuSeconds"): number[] {
  return all.flatMap((one) => {
    const other = all.find(({ warm, pair, way }) => one.warm && !warm && pair === one.pair && way === one.way);
    return other === undefined ? [] : [one[key] / other[key]];
  });
}
