/**
 * Measures the speed of the page kernels, both twins in the same run:
 * `node dist/test/bench/kernels-bench.js [REGEX of case names]`. Fixtures come from a seed. The rates count the bytes
 * of new pages, whatever else a kernel reads.
 */
import { fileURLToPath } from "node:url";
import { KERNEL_RESERVED_BYTES } from "../../shared/page/kernel-memory.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { type Address, address, PAGE_SIZE } from "../../shared/units.ts";
import { PlainKernels } from "../support/plain-kernels.ts";
import { numbers } from "./guest-pages.ts";
import { type Round, summary, timed } from "./measure.ts";

const FIXTURE_BYTES = 32 << 20;
/** The length beyond which a delta is given up, bytes: a round number near the scheduler's own limit. */
const DELTA_LIMIT = 2048;
/** How many bytes one call of checksum() covers: it is called for frames, not for pages. */
const FRAME_BYTES = 256 << 10;
/** How often each twin has its turn. In a turn, SETTLING_ROUNDS do not count and COUNTED_ROUNDS count. */
const TURNS = 3;
const SETTLING_ROUNDS = 6;
const COUNTED_ROUNDS = 3;

const BASE = KERNEL_RESERVED_BYTES;
const CURRENT = BASE + FIXTURE_BYTES;
const OUT = address(CURRENT + FIXTURE_BYTES);
const MEMORY_BYTES = OUT + FRAME_BYTES;

/** The result of one case with one twin: the median, slowest and fastest round, in 1e9 bytes a second. */
export interface KernelMeasurement {
  readonly name: string;
  readonly twin: "simd" | "plain";
  readonly gigabytesPerSecond: number;
  readonly slowest: number;
  readonly fastest: number;
  readonly cpuSecondsPerGigabyte: number;
  /** How many times as fast as the plain twin the SIMD twin was, by the medians. Only the SIMD twin has it. */
  readonly timesPlain?: number;
  /** The mean length of the deltas that were made, bytes. Only cases of deltas have it. */
  readonly deltaBytes?: number;
}

/** Changes `current`, which is a copy of a page of the base, into the new page. */
type Fixture = (current: Uint8Array, next: () => number) => void;
/**
 * Works on one page, or one frame, that is `step` bytes long. The results are summed up, so that V8 does not optimise
 * the work away.
 */
type Work = (kernels: PageKernels, base: Address, current: Address) => number;

interface Case {
  readonly name: string;
  readonly fixture: Fixture;
  readonly work: Work;
  readonly step: number;
  /** How much of the fixture the plain twin works on, bytes: with all of it some cases would take seconds. */
  readonly plainBytes: number;
}

const nothing: Fixture = () => {};
const zero: Fixture = (current) => current.fill(0);
const words =
  (count: number, bytes: number): Fixture =>
  (current, next) => {
    for (let i = 0; i < count; i++) {
      const at = (next() % (PAGE_SIZE / bytes)) * bytes;
      for (let offset = 0; offset < bytes; offset++) current[at + offset] = ~(current[at + offset] ?? 0);
    }
  };
const halfLines: Fixture = (current, next) => {
  for (let at = 0; at < PAGE_SIZE; at += 64)
    if (next() & 256) for (let offset = 0; offset < 64; offset++) current[at + offset] = ~(current[at + offset] ?? 0);
};
const halfBytes: Fixture = (current, next) => {
  for (let at = 0; at < PAGE_SIZE; at++) if (next() & 256) current[at] = ~(current[at] ?? 0);
};
const everything: Fixture = (current, next) => {
  for (let at = 0; at < PAGE_SIZE; at++) current[at] = next() >>> 8;
};

const isZero: Work = (kernels, _base, current) => Number(kernels.isZero(current));
const equal: Work = (kernels, base, current) => Number(kernels.equal(base, current));
const delta: Work = (kernels, base, current) => kernels.encodeDelta(base, current, OUT, DELTA_LIMIT);
const checksum: Work = (kernels, _base, current) => {
  kernels.checksum(current, FRAME_BYTES, OUT);
  return 0;
};
const copy: Work = (kernels, _base, current) => {
  kernels.copy(OUT, current, PAGE_SIZE);
  return 0;
};

const page = (name: string, fixture: Fixture, work: Work): Case => ({
  name,
  fixture,
  work,
  step: PAGE_SIZE,
  plainBytes: 4 << 20,
});

const CASES: readonly Case[] = [
  page("zero, of zero pages", zero, isZero),
  page("zero, of random pages", everything, isZero),
  page("equal, of equal pages", nothing, equal),
  page("equal, of random pages", everything, equal),
  page("delta, equal pages", nothing, delta),
  page("delta, 4 words of 4 bytes", words(4, 4), delta),
  page("delta, 8 words of 8 bytes", words(8, 8), delta),
  page("delta, half of the lines", halfLines, delta),
  page("delta, half of the bytes", halfBytes, delta),
  page("delta, random pages", everything, delta),
  { name: "checksum, 256 KiB", fixture: everything, work: checksum, step: FRAME_BYTES, plainBytes: FRAME_BYTES },
  page("copy, 4 KiB", everything, copy),
];

/** Fills the base pages with random bytes, the same for all cases. */
function fillBase(memory: Uint8Array): void {
  const next = numbers(0x5eed);
  const view = new Uint32Array(memory.buffer, BASE, FIXTURE_BYTES / 4);
  for (let i = 0; i < view.length; i++) view[i] = next();
}

function fillCurrent(memory: Uint8Array, fixture: Fixture): void {
  const next = numbers(0xcafe);
  memory.copyWithin(CURRENT, BASE, BASE + FIXTURE_BYTES);
  for (let at = CURRENT; at < CURRENT + FIXTURE_BYTES; at += PAGE_SIZE)
    fixture(memory.subarray(at, at + PAGE_SIZE), next);
}

function round(kernels: PageKernels, { work, step }: Case, bytes: number): Round {
  let sum = 0;
  const one = timed(bytes, () => {
    for (let at = 0; at < bytes; at += step) sum += work(kernels, address(BASE + at), address(CURRENT + at));
  });
  if (!Number.isFinite(sum)) throw new RangeError("a kernel gave no number");
  return one;
}

/**
 * Runs rounds that settle and then rounds that count, since memory is slow for milliseconds after other work
 * (test/bench/README.md).
 */
function steadyRounds(kernels: PageKernels, one: Case, bytes: number, rounds: Round[]): void {
  for (let i = 0; i < SETTLING_ROUNDS; i++) round(kernels, one, bytes);
  for (let i = 0; i < COUNTED_ROUNDS; i++) rounds.push(round(kernels, one, bytes));
}

function meanDelta(kernels: PageKernels, { work }: Case): number | undefined {
  if (work !== delta) return undefined;
  let made = 0;
  let sum = 0;
  for (let at = 0; at < FIXTURE_BYTES; at += PAGE_SIZE) {
    const length = delta(kernels, address(BASE + at), address(CURRENT + at));
    if (length > 0) made += 1;
    if (length > 0) sum += length;
  }
  return made === 0 ? undefined : sum / made;
}

function measure(one: Case, simd: PageKernels, plain: PageKernels): [KernelMeasurement, KernelMeasurement] {
  for (const kernels of [simd, plain]) fillCurrent(kernels.memory, one.fixture);
  const rounds: { simd: Round[]; plain: Round[] } = { simd: [], plain: [] };
  // the twins take turns, so that what else the machine does affects both alike
  for (let turn = 0; turn < TURNS; turn++) {
    steadyRounds(simd, one, FIXTURE_BYTES, rounds.simd);
    steadyRounds(plain, one, one.plainBytes, rounds.plain);
  }
  const [fast, slow] = [summary(rounds.simd), summary(rounds.plain)];
  const deltaBytes = meanDelta(simd, one);
  const timesPlain = fast.gigabytesPerSecond / slow.gigabytesPerSecond;
  return [
    { name: one.name, twin: "simd", ...fast, timesPlain, ...(deltaBytes === undefined ? {} : { deltaBytes }) },
    { name: one.name, twin: "plain", ...slow },
  ];
}

/**
 * Runs the cases whose name matches, and reports the results of a case as soon as it is measured: first the SIMD
 * twin's, then the plain twin's. Takes about ten seconds and 130 MiB.
 */
export function benchKernels(report: (measurement: KernelMeasurement) => void, matching = /./): void {
  const simd = loadKernels(MEMORY_BYTES);
  const plain = new PlainKernels(MEMORY_BYTES);
  for (const kernels of [simd, plain]) fillBase(kernels.memory);
  for (const one of CASES.filter(({ name }) => matching.test(name)))
    for (const measurement of measure(one, simd, plain)) report(measurement);
}

/** Formats a measurement as a line of text. */
function kernelLine(measurement: KernelMeasurement): string {
  const { name, twin, gigabytesPerSecond, slowest, fastest, timesPlain, deltaBytes } = measurement;
  const rate = `${gigabytesPerSecond.toFixed(2).padStart(8)} GB/s (${slowest.toFixed(2)} to ${fastest.toFixed(2)})`;
  const ratio = timesPlain === undefined ? "" : `, ${timesPlain.toFixed(1)} x plain`;
  const length = deltaBytes === undefined ? "" : `, ${deltaBytes.toFixed(0)} bytes a delta`;
  return `${name.padEnd(28)} ${twin.padEnd(5)} ${rate}${ratio}${length}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  benchKernels((measurement) => console.log(kernelLine(measurement)), new RegExp(process.argv[2] ?? "."));
