/** Commits random faults at random moments, one after the other, on the same guest. The seed decides what is drawn. */
import { generator } from "../support/random.ts";
import type { CellResult } from "./cell.ts";
import { canHaveDisks } from "./disks.ts";
import { drawCell } from "./draw-cell.ts";
import { FaultRig } from "./fault-rig.ts";
import { keepLog } from "./keep-log.ts";
import { runCell } from "./run-cell.ts";

export interface SoakOptions {
  readonly seed: number;
  readonly minutes: number;
  readonly faults: number;
  /** True when agents and guests run in the units of systemd/. */
  readonly units: boolean;
  readonly say: (line: string) => void;
}

/** Commits faults until the time is over, or their number is reached. @returns how many faults had a violation */
export async function soak(options: SoakOptions): Promise<number> {
  const { seed, minutes, faults, say } = options;
  const random = generator(seed);
  const endMs = performance.now() + minutes * 60_000;
  const on = await FaultRig.open({ units: options.units });
  const results: CellResult[] = [];
  say(`seed ${seed}, link: ${on.rig.network.kind}`);
  try {
    while (results.length < faults && performance.now() < endMs) {
      const cell = drawCell(random, { cable: on.rig.network.kind === "namespaces", disks: canHaveDisks() });
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
    `guests lost beyond the only copy's host ${violated(/no guest runs/)}, doubled ${violated(/both hosts|two copies/)}, ` +
      `corrupted ${violated(/wrong|guest said/)}; ${failed} faults with a violation`,
  );
  return failed;
}
