/** Computes the medians and the spread of the repetitions of each cell. */
import { cellKey, type LimitLine, type Line, type Sample } from "./sample.ts";

/** The median, the least and the most of some values. All three are NaN if there are no values. */
export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

export interface CellSummary {
  readonly workload: string;
  readonly link: string;
  readonly contender: string;
  readonly samples: readonly Sample[];
  /** True if all repetitions came to their end. */
  readonly completed: boolean;
  readonly totalSeconds: Spread;
  readonly downtimeMs: Spread;
  readonly stallMs: Spread;
  readonly bytes: Spread;
  /** Fractions, from 0 to 1. */
  readonly slowDown: Spread;
  readonly qemuCpuSeconds: Spread;
  readonly sourceAgentCpuSeconds: Spread;
  readonly destinationAgentCpuSeconds: Spread;
  /** The peak memory of the larger agent. */
  readonly agentPeakBytes: Spread;
  readonly ended: readonly string[];
}

export function spreadOf(values: readonly (number | undefined)[]): Spread {
  const sorted = values.filter((one) => one !== undefined).sort((one, other) => one - other);
  const [least, most] = [sorted[0] ?? Number.NaN, sorted.at(-1) ?? Number.NaN];
  const middle = sorted.length / 2;
  // for an even number of values the median is the mean of the two in the middle
  const [low, high] = [sorted[Math.ceil(middle) - 1], sorted[Math.floor(middle)]];
  return { median: ((low ?? Number.NaN) + (high ?? Number.NaN)) / 2, least, most };
}

/** Sums up the samples of each cell. The cells are in the order in which they were first measured. */
export function summarise(lines: readonly Line[]): readonly CellSummary[] {
  const groups = new Map<string, Sample[]>();
  for (const line of lines) {
    if (line.kind !== "sample") continue;
    const key = cellKey(line);
    groups.set(key, [...(groups.get(key) ?? []), line]);
  }
  return [...groups.values()].flatMap((samples) => {
    const [first] = samples;
    return first === undefined ? [] : [summaryOf(first, samples)];
  });
}

function summaryOf({ workload, link, contender }: Sample, samples: readonly Sample[]): CellSummary {
  const of = (figure: (one: Sample) => number | undefined): Spread => spreadOf(samples.map(figure));
  return {
    workload,
    link,
    contender,
    samples,
    completed: samples.every(({ completed }) => completed),
    totalSeconds: of((one) => one.totalSeconds),
    downtimeMs: of((one) => one.downtimeMs),
    stallMs: of((one) => one.stallMs),
    bytes: of((one) => one.bytes),
    slowDown: of((one) => one.slowDown),
    qemuCpuSeconds: of(({ cpuSeconds }) => cpuSeconds["source QEMU"] + cpuSeconds["destination QEMU"]),
    sourceAgentCpuSeconds: of(({ cpuSeconds }) => cpuSeconds["source agent"]),
    destinationAgentCpuSeconds: of(({ cpuSeconds }) => cpuSeconds["destination agent"]),
    agentPeakBytes: of(({ peakBytes }) => Math.max(peakBytes["source agent"], peakBytes["destination agent"])),
    ended: [...new Set(samples.flatMap(({ ended }) => (ended === undefined ? [] : [ended])))],
  };
}

/** Says how fast one processor was just before the migrations. @returns a sentence, or "" if that was not measured */
export function machineText(lines: readonly Line[]): string {
  const { median, least, most } = spreadOf(
    lines.map((line) => (line.kind === "sample" ? line.machineMBps : undefined)),
  );
  if (Number.isNaN(median)) return "";
  return `One processor compressed ${median.toFixed(0)} MB/s just before each migration (${least.toFixed(0)}–${most.toFixed(0)}; zstd's level -8, always the same bytes).`;
}

/** The physical limits, by workload. */
export const limitsOf = (lines: readonly Line[]): ReadonlyMap<string, LimitLine> =>
  new Map(lines.filter((line) => line.kind === "limit").map((line) => [line.workload, line]));

/**
 * How long the different pages of a workload take on a link when they are compressed once, seconds; 0 for a link
 * without a limit to its rate.
 */
export const physicalSeconds = (limit: LimitLine | undefined, bitsPerSecond: number): number =>
  limit === undefined ? Number.NaN : (8 * limit.compressedBytes) / bitsPerSecond;
