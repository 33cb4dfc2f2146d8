/** The workloads of the suite: what a guest does, and by which of its own counts its work is measured. */
import type { GuestOptions, Workload } from "../../support/guest.ts";
import type { Beat } from "../../support/serial.ts";

export interface SuiteWorkload {
  readonly name: string;
  /** What the guest does, in one line for the report. */
  readonly what: string;
  readonly memoryMiB: number;
  readonly workload: Workload;
  readonly image?: GuestOptions["image"];
  /** The guest's own count of the work that it has done. */
  readonly work: (beat: Beat) => number;
}

const pages = (beat: Beat): number => beat.pages;
const words = (beat: Beat): number => beat.wordsChecked;
const MEMORY_MIB = 512;

const of = (
  name: string,
  what: string,
  workload: Workload,
  more: Partial<SuiteWorkload> = {},
): [string, SuiteWorkload] => [name, { name, what, memoryMiB: MEMORY_MIB, workload, work: pages, ...more }];

/** The workloads of the standard suites, in guests of 512 MiB. The rates are those of a guest that is not migrated. */
export const WORKLOADS: ReadonlyMap<string, SuiteWorkload> = new Map([
  of("idle", "256 MiB filled, nothing written", { regionMiB: 16, fillMiB: 256, rate: 0 }, { work: words }),
  of("sparse", "4 words of each page of 128 MiB, 200 MB/s, walking", { regionMiB: 128, rate: 200e6, words: 4 }),
  of("zipf", "16 words a page of 128 MiB, 100 MB/s, by a Zipf law", {
    ...{ regionMiB: 128, rate: 100e6, words: 16 },
    order: "zipf",
  }),
  of("dense", "half of each page of 64 MiB, 60 MB/s, walking", { regionMiB: 64, rate: 60e6, words: 256 }),
  of("incompressible", "whole pages of 64 MiB, fresh random words, 30 MB/s, at random", {
    ...{ regionMiB: 64, rate: 30e6, mode: "scramble" },
    order: "random",
  }),
  of("streaming", "a ring of 64 MiB filled with fresh random words, 8 MB/s", {
    ...{ regionMiB: 64, fillMiB: 192, rate: 8e6, mode: "scramble" },
  }),
  of(
    "cpu",
    "computes all the time over 128 MiB, writes 4 MB/s into 2 MiB",
    { regionMiB: 2, fillMiB: 128, rate: 4e6, words: 16, checkRate: 1e12 },
    { work: words },
  ),
  of(
    "redis",
    "redis-server with 100000 keys of 1000 bytes under redis-benchmark, as many sets as gets",
    { regionMiB: 4, rate: 0, checkRate: 4e6, app: true },
    { image: "redis", work: (beat) => beat.appCommands },
  ),
]);

/** Guests of growing size and of growing dirty rate, to find out what of a migration grows with them. */
export const GROWTH: ReadonlyMap<string, SuiteWorkload> = new Map([
  ...[256, 512, 1024, 2048, 4096].map((memoryMiB) =>
    of(
      `${memoryMiB} MiB`,
      "half of its memory filled, 25 MB/s into 4 words of each page of 64 MiB",
      { regionMiB: 64, fillMiB: memoryMiB / 2, rate: 25e6, words: 4 },
      { memoryMiB },
    ),
  ),
  ...[0, 25, 50, 100, 150, 200, 300].map((rate) =>
    of(
      `${rate} MB/s`,
      "into 16 words of each page of 128 MiB, walking; 512 MiB of memory",
      { regionMiB: 128, rate: rate * 1e6, words: 16 },
      rate === 0 ? { work: words } : {},
    ),
  ),
]);
