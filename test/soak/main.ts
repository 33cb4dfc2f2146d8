/** npm run test:disks [-- --seed N --migrations N --minutes M]: see README.md beside this file. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { wrongBlocks } from "../support/disk-image.ts";
import { DiskWorld } from "./disk-world.ts";
import { draws } from "./draws.ts";
import { type MigrationRow, oneMigration } from "./one-migration.ts";

const LOGS = join(packageRoot(), ".cache", "disks");

const { values: given } = parseArgs({
  options: {
    seed: { type: "string" },
    migrations: { type: "string", default: "20" },
    minutes: { type: "string" },
  },
});
const seed = Number(given.seed ?? Date.now() % 1e6);
const migrations = Number(given.migrations);
const endMs = performance.now() + Number(given.minutes ?? Number.MAX_VALUE) * 60_000;

const say = (line: string): void => void process.stdout.write(`${line}\n`);

function row(number: number, one: MigrationRow): string {
  const { draw, from, before, during, outcome, reason, seconds, downtimeMs, violations } = one;
  const word = violations.length === 0 ? "ok" : "VIOLATED";
  const way = from.name === "a" ? "a to b" : "b to a";
  const head = `${String(number).padStart(4)} ${word.padEnd(8)} ${way} ${draw.strategy.padEnd(13)}`;
  const done = `${before.padEnd(18)} ${during.padEnd(34)}`;
  const figures = `${seconds.toFixed(1).padStart(5)} s ${(downtimeMs?.toFixed(0) ?? "–").padStart(5)} ms`;
  return [
    `${head} ${done} ${outcome.padEnd(7)} ${reason.padEnd(20)} ${figures}`,
    ...violations.map((each) => `     ${each}`),
  ].join("\n");
}

/** Merges all layers into one, stops the guest, and reads the image. @returns the blocks that are wrong, in words */
async function readImage(world: DiskWorld): Promise<readonly string[]> {
  if ((await world.layers()).length > 1) {
    await world.beginMerge();
    await world.endMerge();
  }
  const qmp = await world.monitor();
  await qmp.execute("stop");
  world.rig.serial(world.at, world.name).catchUp();
  return wrongBlocks(world.image, world.disk().written);
}

function totals(rows: readonly MigrationRow[]): string {
  const count = (test: (one: MigrationRow) => boolean): number => rows.filter(test).length;
  return [
    `${rows.length} migrations`,
    ...(["moved", "failed", "refused", "broken"] as const).map(
      (outcome) => `${count((one) => one.outcome === outcome)} ${outcome}`,
    ),
    `${count(({ during }) => /^locked [1-9]/.test(during))} met a lock`,
    `${count(({ during }) => during.endsWith(": done"))} met a change of the disks`,
  ].join(", ");
}

async function soak(): Promise<number> {
  const draw = draws(seed);
  const rows: MigrationRow[] = [];
  const world = await DiskWorld.open();
  let wrongOnImage: readonly string[] = [];
  say(`seed ${seed}, link: ${world.rig.network.kind}`);
  try {
    while (rows.length < migrations && performance.now() < endMs) {
      const one = await oneMigration(world, draw());
      rows.push(one);
      say(row(rows.length, one));
      if (one.violations.length === 0) continue;
      mkdirSync(LOGS, { recursive: true });
      const path = join(LOGS, `soak-${seed}-${rows.length}.log`);
      writeFileSync(path, [JSON.stringify(one, null, 2), one.output, world.logs()].join("\n"));
      say(`     log: ${relative(packageRoot(), path)}`);
    }
    wrongOnImage = await readImage(world);
    for (const line of wrongOnImage) say(`     ${line}`);
  } finally {
    await world.close();
  }
  const { written, checked, wrong, failed } = world.disk();
  const violated = rows.filter(({ violations }) => violations.length > 0).length;
  say(totals(rows));
  say(
    `${written} blocks written, ${checked} checked, ${wrong} wrong, ${failed} errors of the disk, ` +
      `${wrongOnImage.length} wrong on the image; ${world.asker.answers} answers to the second client; ` +
      `${violated} migrations with a violation`,
  );
  return violated + wrongOnImage.length;
}

process.exitCode = (await soak()) > 0 ? 1 : 0;
