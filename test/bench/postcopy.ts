/**
 * Compares post-copy and hybrid with QEMU's own, with the same guest and link. The contenders take turns. Measured are
 * the time until the last page has come, the bytes on the link, and what the guest itself sees.
 *
 *     npm run bench:postcopy [-- --rounds N] [--link 1Gbit|100Mbit] [--order walk|random|zipf] [--json FILE]
 *
 * `--order` is the order in which the guest visits its pages.
 */
import { writeFileSync } from "node:fs";
import { Option } from "commander";
import { argument } from "../../cli/context.ts";
import type { MigrationView } from "../../shared/protocol/report.ts";
import { parseByteRate } from "../../shared/quantities.ts";
import { type HostAgents, startAgents } from "../support/agents.ts";
import { migrate, requireMoved } from "../support/ferry-json.ts";
import { foundGuest } from "../support/found-guest.ts";
import { type GuestOptions, guestDefinition } from "../support/guest.ts";
import { postcopyWithQemu } from "../support/qemu-postcopy.ts";
import { Rig, type RigGuest, type RigHost } from "../support/rig.ts";
import { joinedBeats } from "../support/serial.ts";
import { benchmark, wholeNumber } from "./arguments.ts";
import { median } from "./measure.ts";
import { slowDownIn } from "./suite/cell.ts";

const ORDERS = ["walk", "random", "zipf"] as const;
const rate = (text: string) => ({ text, bytesPerSecond: parseByteRate(text) });
const values = benchmark("bench:postcopy")
  .option("--rounds <n>", "migrations of each contender", argument(wholeNumber), 3)
  .addOption(
    new Option("--link <rate>", "that the link carries").argParser(argument(rate)).default(rate("1Gbit"), "1Gbit"),
  )
  .addOption(new Option("--order <name>", "in which the guest visits its pages").choices(ORDERS).default("walk"))
  .option("--json <file>", "write all figures there")
  .parse()
  .opts<{ rounds: number; link: ReturnType<typeof rate>; order: (typeof ORDERS)[number]; json?: string }>();
const { rounds: ROUNDS, order } = values;
const NAME = "busy";
const GUEST: GuestOptions = { name: NAME, workload: { order } };
const BEATS = { timeoutMs: 120_000 };
const SETTLE_BEATS = 20;
const BEFORE_MS = 800;

interface Figures {
  readonly totalSeconds: number;
  readonly megabytes: number;
  readonly downtimeMs: number;
  /**
   * The longest time between two turns of the guest's loop, by the guest's own clock, which stands still while the
   * guest is stopped.
   */
  readonly stallMs: number;
  /**
   * The part of its own work that the guest does not do during the migration, by its rate before: 0 is none, 1 is all.
   */
  readonly slowDown: number;
  readonly serviceP99Ms?: number;
}

const contenders = ["qemu", "qemu preempt", "qemu hybrid preempt", "ferry", "ferry hybrid"] as const;
type Contender = (typeof contenders)[number];

const rig = await Rig.open({ bitsPerSecond: 8 * values.link.bytesPerSecond });
const results = new Map<Contender, Figures[]>(contenders.map((one) => [one, []]));
try {
  const [a, b] = [
    await startAgents(rig, rig.a, { rehearsed: true }),
    await startAgents(rig, rig.b, { rehearsed: true }),
  ];
  const definition = guestDefinition(GUEST);
  rig.writeDefinition(definition);
  const agents = new Map<RigHost, HostAgents>([
    [rig.a, a],
    [rig.b, b],
  ]);
  let guest = await rig.startGuest(rig.a, definition);
  for (let round = 0; round < ROUNDS; round++)
    for (const contender of contenders) {
      await guest.serial.waitForBeats(SETTLE_BEATS, BEATS);
      const from = lastBeat();
      const startMs = performance.now();
      const one = await run(contender, guest, agents);
      guest = one.guest;
      const endMs = performance.now();
      await guest.serial.waitForBeats(SETTLE_BEATS, BEATS);
      const stallMs = longestGapSince(from);
      const figures = {
        ...one.figures,
        stallMs,
        slowDown: slowDownIn(beats(), ({ pages }) => pages, startMs, endMs, BEFORE_MS) ?? Number.NaN,
      };
      results.get(contender)?.push(figures);
      process.stderr.write(`${round + 1} ${contender}: ${JSON.stringify(figures)}\n`);
    }
  const { errors } = await guest.serial.waitForBeats(1, BEATS);
  say();
  process.stdout.write(`The guest's own check of its memory found ${errors} errors\n`);
  if (errors > 0) process.exitCode = 1;
} finally {
  await rig.close();
}

async function run(
  contender: Contender,
  guest: RigGuest,
  agents: ReadonlyMap<RigHost, HostAgents>,
): Promise<{ guest: RigGuest; figures: Omit<Figures, "stallMs" | "slowDown"> }> {
  if (contender.startsWith("qemu")) {
    const definition = guestDefinition(GUEST);
    const preempt = contender.includes("preempt");
    const one = await postcopyWithQemu({
      rig,
      guest,
      definition,
      preempt,
      passes: contender.includes("hybrid") ? 2 : 0,
    });
    const { totalSeconds, downtimeMs, bytesOnWire } = one;
    return { guest: one.guest, figures: { totalSeconds, downtimeMs, megabytes: bytesOnWire / 1e6 } };
  }
  const to = rig.other(guest.host);
  const [source, destination] = [agents.get(guest.host), agents.get(to)];
  if (source === undefined || destination === undefined) throw new Error("no agents on a host");
  const strategy = contender === "ferry" ? "postcopy" : "hybrid";
  const bytesBefore = await rig.network.wireBytes();
  const { result } = requireMoved(await migrate(rig, source, destination, NAME, ["--strategy", strategy]));
  const megabytes = ((await rig.network.wireBytes()) - bytesBefore) / 1e6;
  return { guest: await foundGuest(rig, to, NAME), figures: { ...figuresOf(result), megabytes } };
}

function figuresOf(result: NonNullable<MigrationView["result"]>): Omit<Figures, "stallMs" | "slowDown" | "megabytes"> {
  const { totalSeconds, downtime, postcopy } = result;
  const times = { totalSeconds, downtimeMs: downtime.totalMs };
  return postcopy === undefined ? times : { ...times, serviceP99Ms: postcopy.serviceP99Ms };
}

function beats() {
  return joinedBeats([rig.serial(rig.a, NAME), rig.serial(rig.b, NAME)]);
}

function lastBeat(): number {
  return beats().at(-1)?.beat ?? 0;
}

function longestGapSince(beat: number): number {
  const later = beats().filter((one) => one.beat > beat);
  return Math.max(...later.map(({ longestGapUs }) => longestGapUs / 1e3));
}

function say(): void {
  const rows = contenders.map((contender) => {
    const runs = results.get(contender) ?? [];
    const of = (figure: (one: Figures) => number): number => median(runs.map(figure));
    return {
      contender,
      seconds: of((one) => one.totalSeconds),
      megabytes: of((one) => one.megabytes),
      downtimeMs: of((one) => one.downtimeMs),
      stallMs: of((one) => one.stallMs),
      slowDown: of((one) => one.slowDown),
      runs,
    };
  });
  const peer = rows.find(({ contender }) => contender === "qemu preempt");
  process.stdout.write(
    `${values.link.text}, ${order}, medians of ${ROUNDS}; in brackets, times QEMU's post-copy with preempt\n`,
  );
  for (const row of rows) {
    const ratio = (key: "seconds" | "megabytes" | "stallMs"): string =>
      peer === undefined || peer[key] === 0 ? "" : ` (${(row[key] / peer[key]).toFixed(2)})`;
    process.stdout.write(
      `${row.contender.padEnd(20)} ${row.seconds.toFixed(2)} s${ratio("seconds")}  ${row.megabytes.toFixed(0)} MB${ratio("megabytes")}  down ${row.downtimeMs.toFixed(0)} ms  stall ${row.stallMs.toFixed(0)} ms${ratio("stallMs")}  slow-down ${(100 * row.slowDown).toFixed(0)} %\n`,
    );
  }
  if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(rows, undefined, 1));
}
