/** Random faults at random moments, one after the other, on the same guest. The seed decides what is drawn. */
import { type Cell, type CellResult, runCell } from "./cell.ts";
import { FaultRig } from "./fault-rig.ts";
import { type Fault, faultName, held, type Moment, momentName, needsCable, type Victim } from "./faults.ts";
import { keepLog } from "./keep-log.ts";

export interface SoakOptions {
  readonly seed: number;
  readonly minutes: number;
  readonly faults: number;
  readonly say: (line: string) => void;
}

const HOLDS: readonly Moment[] = [
  ...[
    "planned",
    "negotiating",
    "staging",
    "copying",
    "switching",
    "retiring",
    "recording",
    "granting",
    "releasing",
  ].map((state) => held("source", state)),
  ...["negotiating", "staging", "receiving", "loading", "loaded", "owning", "starting", "arrived"].map((state) =>
    held("destination", state),
  ),
];
/** The destination has no QEMU yet, or not certainly. */
const BEFORE_QEMU: readonly string[] = ["source planned", "source negotiating", "destination negotiating"];
const VICTIMS: readonly Victim[] = ["source agent", "destination agent", "source QEMU", "destination QEMU"];
/** A migration of this guest takes about this long at full rate. */
const LATEST_MS = 1500;
const LONGEST_STOP_SECONDS = 5;
const LONGEST_CUT_SECONDS = 6;

/** @returns how many promises were broken */
export async function soak(options: SoakOptions): Promise<number> {
  const { seed, minutes, faults, say } = options;
  const random = generator(seed);
  const endMs = performance.now() + minutes * 60_000;
  const on = await FaultRig.open();
  const results: CellResult[] = [];
  say(`seed ${seed}, link: ${on.rig.network.kind}`);
  try {
    while (results.length < faults && performance.now() < endMs) {
      const cell = draw(random, on.rig.network.kind === "namespaces");
      const result = await runCell(on, cell);
      results.push(result);
      say(line(results.length, result));
      if (result.violations.length === 0) continue;
      say(`     log: ${keepLog(on, `soak ${seed} ${results.length}`)}`);
      await on.reset();
    }
  } finally {
    await on.close();
  }
  return summary(results, say);
}

/** mulberry32: good enough to choose faults by, and the same on every machine. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The same number of draws whatever comes of them, so that one seed is one run. */
function draw(random: () => number, cable: boolean): Cell {
  const [what, whom, when, where, long, rate] = [random(), random(), random(), random(), random(), random()];
  const victim = pick(VICTIMS, whom);
  const moment = drawMoment(when, where, rate, victim);
  const drawn = drawFault(what, victim, long);
  const fault: Fault = cable || !needsCable(drawn) ? drawn : { kind: "kill", victim };
  const lasts = fault.kind !== "kill" && fault.kind !== "stop" && fault.seconds !== undefined;
  return {
    name: `${faultName(fault)}, ${momentName(moment)}`,
    fault,
    moment,
    limits: lasts ? "patient" : "short",
    mayLose: "if it was the only copy",
    mayDoubt: fault.kind === "kill" && victim === "destination QEMU",
  };
}

function drawMoment(when: number, where: number, rate: number, victim: Victim): Moment {
  if (when >= 0.5) return { kind: "after", ms: (when - 0.5) * 2 * LATEST_MS, bitsPerSecond: rate < 0.5 ? 1e9 : 150e6 };
  const holds = victim === "destination QEMU" ? HOLDS.filter((one) => !BEFORE_QEMU.includes(momentName(one))) : HOLDS;
  return pick(holds, where);
}

/** Two in five kill, one in five stops, two in five break the link. */
function drawFault(what: number, victim: Victim, long: number): Fault {
  if (what < 0.4) return { kind: "kill", victim };
  if (what < 0.6) return { kind: "stop", victim, seconds: 0.2 + long * LONGEST_STOP_SECONDS };
  const seconds = long < 0.8 ? 0.1 + (long / 0.8) * LONGEST_CUT_SECONDS : undefined;
  return { kind: what < 0.9 ? "cut" : "reverse", seconds };
}

const pick = <Item>(items: readonly Item[], drawn: number): Item => items[Math.floor(drawn * items.length)]!;

function line(number: number, { cell, outcome, seconds, longestPauseMs, violations }: CellResult): string {
  const word = violations.length === 0 ? "ok" : "VIOLATED";
  const head = `${String(number).padStart(4)} ${word.padEnd(8)} ${cell.name.padEnd(56)} ${outcome.padEnd(16)}`;
  const figures = `${seconds.toFixed(1).padStart(5)} s  pause ${longestPauseMs.toFixed(0).padStart(5)} ms`;
  return [`${head} ${figures}`, ...violations.map((one) => `     ${one}`)].join("\n");
}

function summary(results: readonly CellResult[], say: (line: string) => void): number {
  const count = (test: (result: CellResult) => boolean): number => results.filter(test).length;
  const violated = (pattern: RegExp): number => count(({ violations }) => violations.some((one) => pattern.test(one)));
  const failed = count(({ violations }) => violations.length > 0);
  const total = results.reduce((sum, { seconds }) => sum + seconds, 0);
  const said = [
    `${count(({ outcome }) => outcome !== "missed")} faults in ${(total / 60).toFixed(1)} minutes`,
    `${count(({ outcome }) => outcome.endsWith("moved"))} moved`,
    `${count(({ outcome }) => outcome.endsWith("kept"))} kept`,
    `${count(({ outcome }) => outcome.startsWith("resolved"))} of them in doubt and resolved`,
    `${count(({ outcome, violations }) => outcome === "lost" && violations.length === 0)} killed with their only copy`,
    `${count(({ outcome }) => outcome === "missed")} came too late`,
  ];
  say(said.join(", "));
  say(
    `guests lost ${violated(/no guest runs/)}, doubled ${violated(/both hosts/)}, corrupted ${violated(/wrong|guest said/)}; ${failed} faults with a violation`,
  );
  return failed;
}
