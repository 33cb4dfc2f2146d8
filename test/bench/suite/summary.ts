/** Medians and spread of the repetitions of each cell. */
import { cellKey, type LimitLine, type Line, type Sample } from "./sample.ts";

/** Median, least and most; all three are NaN of nothing. */
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
  /** All repetitions came to their end. */
  readonly completed: boolean;
  readonly totalSeconds: Spread;
  readonly downtimeMs: Spread;
  readonly stallMs: Spread;
  readonly bytes: Spread;
  /** 0 to 1. */
  readonly slowDown: Spread;
  readonly qemuCpuSeconds: Spread;
  readonly sourceAgentCpuSeconds: Spread;
  readonly destinationAgentCpuSeconds: Spread;
  /** The larger of both agents'. */
  readonly agentPeakBytes: Spread;
  readonly ended: readonly string[];
}

export function spreadOf(values: readonly (number | undefined)[]): Spread {
  const sorted = values.filter((one) => one !== undefined).sort((one, other) => one - other);
  const [least, most] = [sorted[0] ?? Number.NaN, sorted.at(-1) ?? Number.NaN];
  const middle = sorted.length / 2;
  // of an even number the mean of the two in the middle
  const [low, high] = [sorted[Math.ceil(middle) - 1], sorted[Math.floor(middle)]];
  return { median: ((low ?? Number.NaN) + (high ?? Number.NaN)) / 2, least, most };
}

/** In the order in which they were first measured. */
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

/** What one processor did beside the migrations, MB/s; as text, or "" where it was not measured. */
export function machineText(lines: readonly Line[]): string {
  const { median, least, most } = spreadOf(
    lines.map((line) => (line.kind === "sample" ? line.machineMBps : undefined)),
  );
  if (Number.isNaN(median)) return "";
  return `One processor compressed ${median.toFixed(0)} MB/s just before each migration (${least.toFixed(0)}–${most.toFixed(0)}; zstd's level -8, always the same bytes).`;
}

/** Of each workload. */
export const limitsOf = (lines: readonly Line[]): ReadonlyMap<string, LimitLine> =>
  new Map(lines.filter((line) => line.kind === "limit").map((line) => [line.workload, line]));

/** Seconds that the unique pages of a workload take on a link, compressed once; 0 where the link has no rate. */
export const physicalSeconds = (limit: LimitLine | undefined, bitsPerSecond: number): number =>
  limit === undefined ? Number.NaN : (8 * limit.compressedBytes) / bitsPerSecond;
