/**
 * Moves a guest between two versions of QEMU in every pairing and by every strategy, and finds out whether the guest
 * was moved and whether its memory was whole.
 *
 *     npm run bench:qemu-versions [-- OPTIONS]          with sid's QEMU as the other one
 *     node dist/test/bench/qemu-versions.js --other PROGRAM [OPTIONS]
 *
 *     --rounds N        crossings of each kind, either way (3)
 *     --pairing NAME…   the QEMUs at host a and b: own-own, own-other, other-other; own is the installed one (all)
 *     --means NAME…     a strategy of Ferry; or qemu, qemu-postcopy, which are QEMU without Ferry (all strategies)
 *     --order NAME      the order in which the guest visits its pages: walk, random, zipf (walk)
 *     --until-wrong     ends at the first word that the guest finds wrong
 *     --keep FOLDER     keeps the consoles and the agents' logs of each crossing that went wrong in this folder
 *     --json FILE       all crossings, a line each
 *
 * It runs as root, since it makes network namespaces. The guest is the tests' busy one, of 256 MiB over 1 Gbit/s. Ferry
 * compares all memory by --verify after precopy and stop-and-copy. The guest checks the memory that it writes to, and a
 * crossing ends when the guest has walked through that memory once at its new host. The table that is printed has a row
 * for each kind of crossing: "whole" counts the crossings after which no word was found wrong, "wrong words" lists how
 * many words were found wrong after each of the other crossings, and "syncs" is the median of how often QEMU synced its
 * dirty bitmap. The exit code is 1 if a crossing went wrong. A refusal does not count as that.
 */
import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Option } from "commander";
import { argument } from "../../cli/context.ts";
import { STRATEGIES } from "../../shared/protocol/messages.ts";
import { type Crossed, Crossing, MEANS, type Means } from "../support/crossing.ts";
import { qemuText } from "../support/other-qemu.ts";
import { benchmark, wholeNumber } from "./arguments.ts";

const LINK_BITS = 1e9;
const ORDERS = ["walk", "random", "zipf"] as const;
const PAIRINGS = { "own-own": [false, false], "own-other": [false, true], "other-other": [true, true] } as const;
type Pairing = keyof typeof PAIRINGS;
/**
 * After this many crossings another guest and other agents are started, so that what crossings leave does not add up.
 */
const CROSSINGS_A_GUEST = 50;

interface Noted extends Crossed {
  readonly at: string;
  readonly qemus: readonly [from: string, to: string];
}

const options = benchmark("bench:qemu-versions")
  .option("--other <program>", "the QEMU beside the installed one", "")
  .option("--rounds <n>", "crossings of each kind, either way", argument(wholeNumber), 3)
  .addOption(
    new Option("--pairing <name...>", "of QEMUs").choices(Object.keys(PAIRINGS)).default(Object.keys(PAIRINGS)),
  )
  .addOption(new Option("--means <name...>", "how the guest crosses").choices(MEANS).default(STRATEGIES))
  .addOption(new Option("--order <name>", "in which the guest visits its pages").choices(ORDERS).default("walk"))
  .option("--until-wrong", "end at the first wrong word", false)
  .option("--keep <folder>", "for what is known of each crossing that went wrong")
  .option("--json <file>", "all crossings")
  .parse()
  .opts<{
    other: string;
    rounds: number;
    pairing: readonly Pairing[];
    means: readonly Means[];
    order: (typeof ORDERS)[number];
    untilWrong: boolean;
    keep?: string;
    json?: string;
  }>();

const { other } = options;
if (other === "" && options.pairing.some((one) => one !== "own-own")) throw new TypeError("--other names no QEMU");
const noted: Noted[] = [];
const isWrong = (one: Crossed): boolean => (!one.moved && one.refusals.length === 0) || one.wrongWords > 0;

for (const pairing of options.pairing) {
  const [a, b] = PAIRINGS[pairing].map((isOther) => (isOther ? other : "")) as [string, string];
  Object.assign(process.env, { FERRY_QEMU_A: a, FERRY_QEMU_B: b });
  if (!(await crossings(pairing))) break;
}
say();
if (noted.some(isWrong)) process.exitCode = 1;

/** Moves guests in one pairing. @returns false when the first wrong word ends the benchmark */
async function crossings(pairing: Pairing): Promise<boolean> {
  let crossing: Crossing | undefined;
  let left = 0;
  try {
    for (const means of wanted()) {
      if (left-- === 0 || crossing === undefined) {
        await crossing?.close();
        crossing = await Crossing.open(LINK_BITS, { order: options.order });
        left = CROSSINGS_A_GUEST - 1;
      }
      const one = await crossing.cross(means);
      note(pairing, one, crossing);
      if (options.untilWrong && isWrong(one)) return false;
      // a guest that was not moved would cross in the same direction again, so another one is started
      if (isWrong(one) || !one.moved) left = 0;
    }
    return true;
  } finally {
    await crossing?.close();
  }
}

/** Lists the crossings of a pairing: there and back by each means, in as many rounds as were asked for. */
function wanted(): Means[] {
  return Array.from({ length: options.rounds }, () => options.means.flatMap((means) => [means, means])).flat();
}

function note(pairing: Pairing, crossed: Crossed, crossing: Crossing): void {
  const at = new Date().toISOString();
  const [from, to] = crossed.from === "a" ? (["a", "b"] as const) : (["b", "a"] as const);
  const one: Noted = { ...crossed, at, qemus: [qemuText(from), qemuText(to)] };
  noted.push(one);
  if (options.json !== undefined) appendFileSync(options.json, `${JSON.stringify({ pairing, ...one })}\n`);
  const end = one.moved ? "moved" : `not moved: ${why(one)}`;
  process.stderr.write(`${at} ${one.qemus.join(" -> ")} ${one.means}: ${end}, ${one.wrongWords} wrong words\n`);
  if (options.keep === undefined || !isWrong(one)) return;
  const folder = join(options.keep, `${noted.length}-${one.means}`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "crossing.json"), JSON.stringify(one, undefined, 1));
  for (const [name, text] of crossing.evidence()) writeFileSync(join(folder, name), text);
}

/** Says why a guest was not moved: by the codes of a refusal, which are stable, or else by the text of the error. */
function why({ refusals, error }: Crossed): string {
  return refusals.length > 0 ? `refused (${refusals.join(", ")})` : (error ?? "none");
}

function say(): void {
  process.stdout.write(
    "| from | to | means | crossings | moved | compared | whole | wrong words | syncs | not moved |\n",
  );
  process.stdout.write(`${"|---".repeat(10)}|\n`);
  const kindOf = ({ qemus: [from, to], means }: Noted): string => `| ${from} | ${to} | ${means} |`;
  for (const kind of new Set(noted.map(kindOf))) {
    const all = noted.filter((one) => kindOf(one) === kind);
    const moved = all.filter((one) => one.moved);
    const compared = moved.filter((one) => one.verified).length;
    const whole = moved.filter((one) => one.wrongWords === 0).length;
    const words = all.map((one) => one.wrongWords).filter((count) => count > 0);
    const syncs = moved.flatMap(({ result }) => (result === undefined ? [] : [result.bitmapSyncs]));
    const median = syncs.toSorted((one, next) => one - next)[syncs.length >> 1] ?? "";
    const errors = [...new Set(all.filter((one) => !one.moved).map(why))].join("; ");
    const figures = [all.length, moved.length, compared, whole, words.join(", ") || 0, median, errors];
    process.stdout.write(`${kind} ${figures.join(" | ")} |\n`);
  }
}
