/** The lines of a run's journal. Each is written as one line of JSON. */

import type { PhysicalLimit } from "./physical-limit.ts";
import type { Role } from "./processes.ts";
import type { ResidualPoint } from "./residual.ts";

/** One migration of one cell. */
export interface Sample {
  readonly kind: "sample";
  readonly workload: string;
  readonly link: string;
  readonly contender: string;
  readonly repetition: number;
  /** False if the migration did not end within the link's limit; `totalSeconds` is that limit then. */
  readonly completed: boolean;
  readonly totalSeconds: number;
  /** From STOP to RESUME, by QEMU's events. */
  readonly downtimeMs?: number;
  /**
   * The longest time between two turns of the guest's own loop, by the guest's clock, which stands still while the
   * guest is stopped.
   */
  readonly stallMs: number;
  /** The bytes that the interface counted, in both directions. */
  readonly bytes: number;
  /**
   * The fraction of its own work that the guest did not do, by its rate before the migration: 0 is none, 1 is all of
   * it. Missing if the guest does no work.
   */
  readonly slowDown?: number;
  readonly cpuSeconds: Readonly<Record<Role, number>>;
  readonly peakBytes: Readonly<Record<"source agent" | "destination agent", number>>;
  /** How many bytes of pages that were not zero Ferry's source agent took from QEMU. */
  readonly movedBytes?: number;
  /** How much was left to send over time. For QEMU it is recorded in the first repetition only. */
  readonly residual?: readonly ResidualPoint[];
  /** How fast one processor was just before the migration, MB/s (gauge.ts). Missing in older runs. */
  readonly machineMBps?: number;
  /** How Ferry came to its end. */
  readonly ended?: string;
  /**
   * How many words of its memory the guest had found wrong by a second after the migration, in all its migrations so
   * far. Missing in older runs.
   */
  readonly wrongWords?: number;
  /**
   * The first 16 of these words as the guest named them on its console: page, version, offset, and the values that it
   * wanted and got.
   */
  readonly corruptions?: readonly string[];
}

/** The physical limit of a workload's guest, measured before anything was moved. */
export interface LimitLine extends PhysicalLimit {
  readonly kind: "limit";
  readonly workload: string;
  readonly memoryMiB: number;
}

/** The result of the guest's own check of its memory, after all migrations of a workload. */
interface CheckLine {
  readonly kind: "check";
  readonly workload: string;
  readonly wrongWords: number;
}

/** The first line of a journal: which suite was run, and on which machine. */
export interface HeaderLine {
  readonly kind: "header";
  readonly suite: string;
  readonly startedAt: string;
  readonly commit: string;
  readonly processor: string;
  readonly processors: number;
  readonly qemu: string;
  readonly accelerator: string;
}

export type Line = HeaderLine | LimitLine | CheckLine | Sample;

/** Names the cell of a sample, the same for all its repetitions. */
export const cellKey = (one: Pick<Sample, "workload" | "link" | "contender">): string =>
  [one.workload, one.link, one.contender].join(" | ");
