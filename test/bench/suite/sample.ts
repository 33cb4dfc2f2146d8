/** One migration of one cell as it is written down, a line of JSON each. */

import type { PhysicalLimit } from "./physical-limit.ts";
import type { Role } from "./processes.ts";
import type { ResidualPoint } from "./residual.ts";

export interface Sample {
  readonly kind: "sample";
  readonly workload: string;
  readonly link: string;
  readonly contender: string;
  readonly repetition: number;
  /** False: not within the link's limit; `totalSeconds` is that limit then. */
  readonly completed: boolean;
  readonly totalSeconds: number;
  /** From STOP to RESUME, by QEMU's events. */
  readonly downtimeMs?: number;
  /** Longest time between two turns of the guest's own loop by its own clock, which stands still while it is stopped. */
  readonly stallMs: number;
  /** Of the interface, both directions. */
  readonly bytes: number;
  /** Of its own work beside its rate before: 0 is none, 1 all of it. Missing where it does none. */
  readonly slowDown?: number;
  readonly cpuSeconds: Readonly<Record<Role, number>>;
  readonly peakBytes: Readonly<Record<"source agent" | "destination agent", number>>;
  /** Ferry: pages that its source agent took from QEMU and that were not zero. */
  readonly movedBytes?: number;
  /** QEMU's of the first repetition only. */
  readonly residual?: readonly ResidualPoint[];
  /** What one processor did just before it, MB/s; see gauge.ts. Missing in older runs. */
  readonly machineMBps?: number;
  /** Ferry's way to its end. */
  readonly ended?: string;
  /** That the guest had found in its memory by a second behind it, in all migrations so far. Missing in older runs. */
  readonly wrongWords?: number;
  /** Those words as the guest named them on its console, its first 16: page, version, offset, what it wanted and got. */
  readonly corruptions?: readonly string[];
}

/** Of a workload's guest, before anything was moved. */
export interface LimitLine extends PhysicalLimit {
  readonly kind: "limit";
  readonly workload: string;
  readonly memoryMiB: number;
}

/** The guest's own check of its memory, when a workload was done. */
export interface CheckLine {
  readonly kind: "check";
  readonly workload: string;
  readonly wrongWords: number;
}

/** First line: what was measured, and on what. */
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

export const cellKey = (one: Pick<Sample, "workload" | "link" | "contender">): string =>
  [one.workload, one.link, one.contender].join(" | ");
