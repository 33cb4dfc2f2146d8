/** Runs one migration of one contender, and measures everything around it. */

import type { RigGuest } from "../../support/rig.ts";
import { type Beat, joinedBeats } from "../../support/serial.ts";
import type { Contender, Scene } from "./contenders.ts";
import { machineSpeed } from "./gauge.ts";
import { CostWatch } from "./processes.ts";
import type { Sample } from "./sample.ts";
import type { SuiteWorkload } from "./workloads.ts";

const BEATS = { timeoutMs: 180_000 };
/**
 * How many heartbeats are waited for before and after a migration, about a second of them. They show the guest's rate
 * before the migration, and what is still unsettled after it.
 */
const SETTLE_BEATS = 22;
/** How long before a migration the guest's own rate is measured, milliseconds. */
const BEFORE_MS = 900;

export interface MeasuredCell {
  readonly sample: Omit<Sample, "kind" | "repetition">;
  readonly guest: RigGuest;
}

export async function measureCell(scene: Scene, contender: Contender, workload: SuiteWorkload): Promise<MeasuredCell> {
  const { rig, guest, link } = scene;
  // this comes before the second in which the guest's own rate is measured
  const machineMBps = machineSpeed();
  await guest.serial.waitForBeats(SETTLE_BEATS, BEATS);
  const consoles = () => [rig.a, rig.b].map((host) => rig.serial(host, guest.name));
  const beats = (): readonly Beat[] => joinedBeats(consoles());
  const from = beats().at(-1)?.beat ?? 0;
  const cost = new CostWatch(rig, guest.host.name);
  const startMs = performance.now();
  const run = await contender.run(scene);
  const endMs = performance.now();
  const { cpuSeconds, peakBytes } = cost.end();
  const { errors } = await run.guest.serial.waitForBeats(SETTLE_BEATS, BEATS);
  const seen = beats();
  const corruptions = consoles().flatMap((console) => console.corruptions());
  const { completed, totalSeconds, downtimeMs, bytesOnWire, residual, movedBytes, ended } = run;
  const slowDown = slowDownIn(seen, workload.work, startMs, endMs);
  return {
    guest: run.guest,
    sample: {
      workload: workload.name,
      link: link.name,
      contender: contender.name,
      completed,
      totalSeconds,
      ...(downtimeMs === undefined ? {} : { downtimeMs }),
      stallMs: Math.max(...seen.filter(({ beat }) => beat > from).map(({ longestGapUs }) => longestGapUs / 1e3)),
      bytes: bytesOnWire,
      ...(slowDown === undefined ? {} : { slowDown }),
      cpuSeconds,
      peakBytes,
      machineMBps,
      wrongWords: errors,
      ...(corruptions.length === 0 ? {} : { corruptions }),
      ...(movedBytes === undefined ? {} : { movedBytes }),
      ...(residual.length === 0 ? {} : { residual }),
      ...(ended === undefined ? {} : { ended }),
    },
  };
}

/**
 * The fraction by which the guest did less work between two moments of this program's clock than in the time before.
 * @param work the guest's own count of its work, in a heartbeat
 * @returns undefined if the guest did nothing before
 */
export function slowDownIn(
  beats: readonly Beat[],
  work: (beat: Beat) => number,
  startMs: number,
  endMs: number,
  beforeMs = BEFORE_MS,
): number | undefined {
  const doneBy = (ms: number): number => {
    const after = beats.findIndex(({ seenAtMs }) => seenAtMs >= ms);
    const [from, to] = [beats[after - 1], beats[after]];
    if (from === undefined || to === undefined) throw new Error("No heartbeats around the migration");
    const part = (ms - from.seenAtMs) / Math.max(1e-9, to.seenAtMs - from.seenAtMs);
    return work(from) + part * (work(to) - work(from));
  };
  const before = (doneBy(startMs) - doneBy(startMs - beforeMs)) / beforeMs;
  return before <= 0 ? undefined : 1 - (doneBy(endMs) - doneBy(startMs)) / (before * (endMs - startMs));
}
