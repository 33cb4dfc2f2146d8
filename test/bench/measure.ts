/**
 * What all groups of the micro-benchmarks have in common: how a case is timed, and how a result is told.
 * GB = 1e9 bytes, of guest memory unless the case says otherwise. CPU time is that of the whole process, all threads.
 */

export interface Measurement {
  readonly group: string;
  readonly name: string;
  /** Median, slowest and fastest round. */
  readonly gigabytesPerSecond: number;
  readonly slowest: number;
  readonly fastest: number;
  /** Median; undefined where it was not measured. */
  readonly cpuSecondsPerGigabyte?: number;
  /** How many times as fast as `peer` of the same run, by the medians. */
  readonly timesPeer?: number;
  readonly peer?: string;
  /** What else there is to say. */
  readonly note?: string;
}

export type Report = (measurement: Measurement) => void;

/** Cases of one kind; reports each as soon as it is measured. `wanted` is asked for every name. */
export interface Group {
  readonly name: string;
  run(report: Report, wanted: (name: string) => boolean): Promise<void>;
}

export interface Round {
  readonly gigabytesPerSecond: number;
  readonly cpuSecondsPerGigabyte: number;
}

export const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

const cpuMicros = (): number => {
  const { user, system } = process.cpuUsage();
  return user + system;
};

/** Times one piece of work on `bytes` bytes. */
export function timed(bytes: number, work: () => void): Round {
  const cpu = cpuMicros();
  const started = process.hrtime.bigint();
  work();
  return roundOf(bytes, Number(process.hrtime.bigint() - started), cpuMicros() - cpu);
}

export async function timedAsync(bytes: number, work: () => Promise<void>): Promise<Round> {
  const cpu = cpuMicros();
  const started = process.hrtime.bigint();
  await work();
  return roundOf(bytes, Number(process.hrtime.bigint() - started), cpuMicros() - cpu);
}

const roundOf = (bytes: number, nanoseconds: number, micros: number): Round => ({
  gigabytesPerSecond: bytes / nanoseconds,
  cpuSecondsPerGigabyte: (micros * 1000) / bytes,
});

/** Medians and extremes. */
export function summary(
  rounds: readonly Round[],
): Pick<Measurement, "gigabytesPerSecond" | "slowest" | "fastest"> & { readonly cpuSecondsPerGigabyte: number } {
  const rates = rounds.map((one) => one.gigabytesPerSecond);
  return {
    gigabytesPerSecond: median(rates),
    slowest: Math.min(...rates),
    fastest: Math.max(...rates),
    cpuSecondsPerGigabyte: median(rounds.map((one) => one.cpuSecondsPerGigabyte)),
  };
}

export interface Contest {
  readonly bytes: number;
  readonly settle: number;
  readonly rounds: number;
}

/**
 * The work and its peer in turns, so that what else the machine does meets both.
 * The first rounds are not counted: code is compiled, memory is touched.
 */
export function contest({ bytes, settle, rounds }: Contest, work: () => void, peer: () => void): [Round[], Round[]] {
  const ours: Round[] = [];
  const theirs: Round[] = [];
  for (let i = 0; i < settle + rounds; i++) {
    const one = timed(bytes, work);
    const other = timed(bytes, peer);
    if (i < settle) continue;
    ours.push(one);
    theirs.push(other);
  }
  return [ours, theirs];
}

/** A result beside its peer's. */
export function against(rounds: readonly Round[], peer: string, peerRounds: readonly Round[]) {
  const own = summary(rounds);
  return { ...own, peer, timesPeer: own.gigabytesPerSecond / summary(peerRounds).gigabytesPerSecond };
}

const NAME_WIDTH = 44;

export const heading = (group: string): string =>
  `${`\n${group}`.padEnd(NAME_WIDTH + 1)}     GB/s   (slowest .. fastest)   CPU s/GB   beside its peer`;

export function line(one: Measurement): string {
  const range = `(${one.slowest.toFixed(2)} .. ${one.fastest.toFixed(2)})`;
  const cpu = one.cpuSecondsPerGigabyte?.toFixed(3) ?? "-";
  const peer = one.timesPeer === undefined ? "" : `${one.timesPeer.toFixed(2)} x ${one.peer}`;
  const columns = [
    one.name.padEnd(NAME_WIDTH),
    one.gigabytesPerSecond.toFixed(2).padStart(8),
    range.padStart(23),
    cpu.padStart(10),
    `  ${peer}`,
  ];
  return `${columns.join(" ")}${one.note === undefined ? "" : `${peer === "" ? "" : "; "}${one.note}`}`;
}
