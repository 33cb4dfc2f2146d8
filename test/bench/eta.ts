/**
 * Compares the ETA with what then happened. An idle guest and the demo's guest move there and back over a link of 1
 * Gbit/s and one of 100 Mbit/s. At a quarter, a half and three quarters of each migration the ETA that was shown is
 * compared with the time that was left. Prints a table, with the median error in its last line.
 *
 *     npm run bench:eta [-- --rounds N] [--views FILE]
 */
import { appendFileSync } from "node:fs";
import type { MigrationView } from "../../shared/protocol/report.ts";
import { type HostAgents, startAgents } from "../support/agents.ts";
import { requireMoved, startMigrate } from "../support/ferry-json.ts";
import { guestDefinition, type Workload } from "../support/guest.ts";
import { Rig } from "../support/rig.ts";
import { median } from "./measure.ts";

/** Rates of the links, bits a second. */
const LINKS = [1e9, 1e8] as const;
/** The moments at which the ETA is compared, as fractions of a migration. */
const MOMENTS = [0.25, 0.5, 0.75] as const;
const GUESTS: readonly (readonly [name: string, workload: Workload])[] = [
  ["idle", { regionMiB: 16, fillMiB: 256, rate: 0 }],
  // the demo's workload
  ["busy", { regionMiB: 128, rate: 200e6, words: 4 }],
];

const option = (name: string): string | undefined => process.argv[process.argv.indexOf(`--${name}`) + 1];
const rounds = process.argv.includes("--rounds") ? Number(option("rounds")) : 2;
const viewsFile = process.argv.includes("--views") ? option("views") : undefined;

interface Guess {
  readonly atSeconds: number;
  readonly leftSeconds: number;
  /** The ETA that was shown; undefined if no end was in sight. */
  readonly etaSeconds: number | undefined;
}

/** Finds what was shown at each of MOMENTS, and how long the migration took from then on. */
function guesses(views: readonly MigrationView[], totalSeconds: number): Guess[] {
  const shown = views.filter(({ status }) => status === "copying" || status === "switching");
  return MOMENTS.map((moment) => {
    const wanted = moment * totalSeconds;
    // the first view that an operator sees from that moment on, or the last one there is
    const view = shown.find(({ progress }) => progress.elapsedSeconds >= wanted) ?? shown.at(-1);
    const atSeconds = view?.progress.elapsedSeconds ?? wanted;
    return { atSeconds, leftSeconds: totalSeconds - atSeconds, etaSeconds: view?.progress.etaSeconds };
  });
}

async function observed(rig: Rig, from: HostAgents, to: HostAgents, guest: string): Promise<Guess[]> {
  const run = await (await startMigrate(rig, from, to, guest)).end();
  const { result } = requireMoved(run);
  const views = run.output
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as MigrationView);
  if (viewsFile !== undefined) for (const view of views) appendFileSync(viewsFile, `${JSON.stringify(view)}\n`);
  return guesses(views, result.totalSeconds);
}

const errors: number[] = [];

function report(what: string, seen: readonly Guess[]): void {
  for (const { atSeconds, leftSeconds, etaSeconds } of seen) {
    const total = atSeconds + leftSeconds;
    // a fraction of the whole migration, so that an error of 0.1 s counts the same whether 0.1 s or 10 s are left
    const error = etaSeconds === undefined ? undefined : Math.abs(etaSeconds - leftSeconds) / total;
    if (error !== undefined) errors.push(error);
    const shown = etaSeconds === undefined ? "none" : `${etaSeconds.toFixed(2)} s`;
    const percent = error === undefined ? "" : `${(100 * error).toFixed(0)} %`;
    process.stdout.write(
      `${what.padEnd(24)} at ${atSeconds.toFixed(2).padStart(6)} of ${total.toFixed(2).padStart(6)} s  ETA ${shown.padStart(8)}  left ${leftSeconds.toFixed(2).padStart(6)} s  ${percent}\n`,
    );
  }
}

const rig = await Rig.open();
try {
  const [a, b] = [
    await startAgents(rig, rig.a, { rehearsed: true }),
    await startAgents(rig, rig.b, { rehearsed: true }),
  ];
  for (const [name, workload] of GUESTS) {
    const definition = guestDefinition({ name, memoryMiB: 512, workload });
    rig.writeDefinition(definition);
    const guest = await rig.startGuest(rig.a, definition);
    await guest.serial.waitForBeats(10, { timeoutMs: 120_000 });
    for (const bitsPerSecond of LINKS) {
      await rig.network.setRate(bitsPerSecond);
      const link = `${name}, ${bitsPerSecond / 1e6} Mbit/s`;
      for (let round = 0; round < rounds; round++) {
        report(link, await observed(rig, a, b, name));
        await rig.serial(rig.b, name).waitForBeats(5, { timeoutMs: 60_000 });
        report(link, await observed(rig, b, a, name));
        await rig.serial(rig.a, name).waitForBeats(5, { timeoutMs: 60_000 });
      }
    }
    await rig.network.setRate(1e9);
    const monitor = await rig.observe(rig.a, name);
    await monitor.execute("quit");
  }
  const sorted = [...errors].sort((one, other) => one - other);
  const p90 = sorted[Math.floor(0.9 * (sorted.length - 1))] ?? Number.NaN;
  process.stdout.write(
    `ETA, error in parts of the whole migration: median ${(100 * median(errors)).toFixed(1)} %, p90 ${(100 * p90).toFixed(1)} %, of ${errors.length} guesses\n`,
  );
} finally {
  await rig.close();
}
await rig.assertNothingLeft();
