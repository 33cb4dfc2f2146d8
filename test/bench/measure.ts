/**
 * What all groups of the micro-benchmarks have in common: how a case is timed, and how a result is printed. 1 GB is 1e9
 * bytes, of guest memory unless the case says otherwise. CPU time is that of the whole process with all its threads.
 */

export interface Measurement {
  readonly group: string;
  readonly name: string;
  /** The median round; `slowest` and `fastest` are the extremes. */
  readonly gigabytesPerSecond: number;
  readonly slowest: number;
  readonly fastest: number;
  /** The median; undefined where it was not measured. */
  readonly cpuSecondsPerGigabyte?: number;
  /** How many times as fast as the `peer` of the same run the case was, by the medians. */
  readonly timesPeer?: number;
  readonly peer?: string;
  /** Further figures of the case, as text. */
  readonly note?: string;
}

type Report = (measurement: Measurement) => void;

/**
 * Cases of one kind. run() reports each case as soon as it is measured, and leaves out the names that are not wanted.
 */
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

/** Runs and times one piece of work on `bytes` bytes. */
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

/** Computes the medians and extremes of rounds. */
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
  /** How many bytes a round counts. */
  readonly bytes: number;
  /** How many rounds come first and do not count. */
  readonly settle: number;
  readonly rounds: number;
}

/**
 * Times the work and its peer in turns, so that what else the machine does affects both alike. The first rounds do not
 * count, since code is compiled and memory is touched for the first time in them.
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

/** Sums up rounds, and compares them with those of a peer. */
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
