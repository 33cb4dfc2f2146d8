/** One migration of the soak: does what was drawn to the guest's disks, and inspects what must hold afterwards. */
import { inspect } from "../fault/inspect.ts";
import { type Ended, type FerryRun, type MigrateRun, slowLink, startMigrate } from "../support/ferry-json.ts";
import type { RigHost } from "../support/rig.ts";
import { BLOCKS, type DiskWorld } from "./disk-world.ts";
import { type Before, type Draw, type During, REFUSED } from "./draws.ts";

/** All blocks are compared once in some seconds; on a busy machine it takes longer. */
const ROUND = { timeoutMs: 60_000 };
const COPIES = { timeoutMs: 60_000 };
/**
 * A line of progress with copied pages. `switching` is one, since stop-and-copy stops the guest before the first page.
 */
const COPYING = /^\{[^\n]*"status":"(copying|switching)"[^\n]*"bytesSent":[1-9]\d{5,}/m;

export interface MigrationRow {
  readonly draw: Draw;
  readonly from: RigHost;
  /** What was done before and during the migration, and what came of it. */
  readonly before: string;
  readonly during: string;
  readonly outcome: "moved" | "failed" | "refused" | "broken";
  /** The code of a migration that did not move the guest, and of each refusal. */
  readonly reason: string;
  readonly seconds: number;
  readonly downtimeMs: number | undefined;
  readonly violations: readonly string[];
  readonly output: string;
}

/** What was done to the guest's disks during the migration. */
interface Done {
  readonly what: During;
  readonly atUs: number;
  readonly medium?: string | undefined;
}

export async function oneMigration(world: DiskWorld, draw: Draw): Promise<MigrationRow> {
  const startMs = performance.now();
  const from = world.at;
  const to = world.rig.other(from);
  const diskBefore = world.disk();
  const before = await doBefore(world, draw.before);
  const mediumBefore = await world.medium();
  const options = ["--strategy", draw.strategy, ...(await slowLink(world.rig, draw.bitsPerSecond))];
  const top = (await world.layers())[0]?.filename ?? world.image;
  const lock = draw.during === "lock at destination" ? world.locker(to).want(top, draw) : undefined;
  const run = await startMigrate(world.rig, world.agents(from), world.agents(to), world.name, options);
  const ended = run.end();
  const [done, during] = lock === undefined ? await doDuring(world, draw, run, ended) : [undefined, ""];
  const result = await ended;
  const locked = await lock?.end();
  const seconds = (performance.now() - startMs) / 1e3;
  const violations = [...misfits(before, draw, result, done, locked)];
  const { at, violations: found } = await inspect(world);
  violations.push(...found);
  const wanted = result.code === 0 ? to : from;
  if (at !== wanted) violations.push(`the guest is to run on ${wanted.name}, and runs on ${at?.name ?? "neither"}`);
  if (at !== undefined) {
    world.at = at;
    violations.push(...(await lookAtDisks(world, diskBefore.written)));
    if (result.code === 0) violations.push(...(await mediumLost(world, from, done, mediumBefore)));
    await world.settle();
  }
  return {
    ...{ draw, from, before, seconds, violations, output: result.output },
    during: locked === undefined ? during : `locked ${locked} times`,
    outcome: outcomeOf(result),
    reason: reasonOf(result),
    downtimeMs: result.answer.result?.downtime.totalMs,
  };
}

/** Does what was drawn before the migration. @returns what was done: a merge with nothing to merge is "nothing" */
async function doBefore(world: DiskWorld, what: Before): Promise<Before> {
  const canMerge = (await world.layers()).length > 1;
  if (what.startsWith("merge") && !canMerge) return "nothing";
  switch (what) {
    case "nothing":
      break;
    case "snapshot":
    case "snapshot, unedited":
      await world.takeSnapshot();
      break;
    case "merge":
    case "merge, unedited":
      await world.beginMerge();
      await world.endMerge();
      break;
    case "merge under way":
      await world.beginMerge();
      break;
    case "change medium":
      await world.changeMedium();
      break;
    case "eject medium":
      await world.ejectMedium();
      break;
  }
  if (what === "snapshot" || what === "merge") await world.editDefinitions();
  return what;
}

/**
 * Does what was drawn, `afterMs` after the first pages were copied.
 * @returns what was done, undefined where it came too late or QEMU refused it; and a text for the row
 */
async function doDuring(
  world: DiskWorld,
  { during, afterMs }: Draw,
  run: MigrateRun,
  ended: Promise<unknown>,
): Promise<[Done | undefined, string]> {
  if (during === "nothing") return [undefined, "nothing"];
  const canMerge = (await world.layers()).length > 1;
  if (during.endsWith("merge") && !canMerge) return [undefined, "nothing"];
  let isOver = false;
  const over = ended.then(() => {
    isOver = true;
  });
  await Promise.race([run.until(COPYING, "copied pages", COPIES).catch(() => undefined), over]);
  await Promise.race([new Promise((resolve) => setTimeout(resolve, afterMs)), over]);
  if (isOver) return [undefined, `${during}: came too late`];
  try {
    const medium = await act(world, during);
    return [{ what: during, atUs: Date.now() * 1e3, medium }, `${during}: done`];
  } catch (thrown) {
    return [undefined, `${during}: ${isOver ? "came too late" : `QEMU refused (${said(thrown)})`}`];
  }
}

async function act(world: DiskWorld, what: During): Promise<string | undefined> {
  if (what === "snapshot") await world.takeSnapshot();
  if (what === "begin merge" || what === "whole merge") await world.beginMerge();
  if (what === "whole merge") await world.endMerge();
  if (what === "eject medium") await world.ejectMedium();
  return what === "change medium" ? await world.changeMedium() : undefined;
}

const said = (thrown: unknown): string => String(thrown).replace(/\s+/g, " ").slice(0, 80);

/** Tells whether the exit code and its reason fit what was done. @returns what does not fit, in words */
function misfits(
  before: Before,
  draw: Draw,
  { code, answer, output }: FerryRun<Ended>,
  done: Done | undefined,
  locked: number | undefined,
): readonly string[] {
  const wrong = (why: string): string[] => [`${why}: exit code ${code}, ${output.trim().split("\n").at(-1)}`];
  const refusal = REFUSED[before];
  if (code === 0) return refusal === undefined ? [] : wrong(`it was to be refused as ${refusal}`);
  const error = answer.error;
  if (code !== 1 || error === undefined) return wrong("neither moved, nor failed with a reason");
  if (!/runs at the source|not touched/.test(error.guestNow))
    return wrong("the guest is not said to run at the source");
  if (refusal !== undefined)
    return error.code === "refused" && error.refusals.every((one) => one.code === refusal)
      ? []
      : wrong(`it was to be refused as ${refusal}`);
  if (done !== undefined && error.code === "disks-changed") return [];
  if (locked !== undefined && /lock/.test(error.message)) return [];
  return wrong(`nothing that was done is a reason for this (${draw.during})`);
}

const outcomeOf = ({ code, answer }: FerryRun<Ended>): MigrationRow["outcome"] =>
  code === 0 ? "moved" : answer.error?.code === "refused" ? "refused" : code === 1 ? "failed" : "broken";

const reasonOf = ({ answer: { error } }: FerryRun<Ended>): string =>
  error === undefined ? "" : [error.code, ...error.refusals.map(({ code }) => code)].join(" ");

/** Checks that the guest writes on, and that its disk has all that it wrote. @returns what is wrong, in words */
async function lookAtDisks(world: DiskWorld, writtenBefore: number): Promise<readonly string[]> {
  const violations: string[] = [];
  const { checked } = world.disk();
  await world.rig
    .serial(world.at, world.name)
    .waitForBeat(({ disk }) => (disk?.checked ?? 0) >= checked + BLOCKS, ROUND)
    .catch(() => violations.push(`the guest does not write on at ${world.at.name}`));
  const disk = world.disk();
  if (disk.written <= writtenBefore) violations.push(`${disk.written} blocks were written, ${writtenBefore} before`);
  if (disk.wrong > 0) violations.push(`the guest found ${disk.wrong} blocks of its disk wrong`);
  if (disk.failed > 0) violations.push(`the guest had ${disk.failed} errors of its disk`);
  const marks = world.marks();
  if (marks.length > 0) violations.push(`left beside the images: ${marks.join(", ")}`);
  return [...violations, ...world.asker.takeErrors()];
}

/** Checks that a medium that was changed while the guest ran at the source is in its drive at the destination. */
async function mediumLost(
  world: DiskWorld,
  from: RigHost,
  done: Done | undefined,
  before: string | undefined,
): Promise<readonly string[]> {
  const isMedium = done?.what === "change medium" || done?.what === "eject medium";
  const now = await world.medium();
  // a medium that was changed after the guest had left that host was not changed for the guest
  if (isMedium && !world.watch.hasRun(from, done.atUs)) return [];
  const wanted = isMedium ? done.medium : before;
  return now === wanted ? [] : [`the medium is ${now ?? "none"}, and was ${wanted ?? "none"} at the source`];
}
