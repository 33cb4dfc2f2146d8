/** What an operator asks of the planner and is told. Field by field PlanRequest and PlanResponse of proto/ferry/v1/operator.proto. */
import type { Refusal } from "../fault.ts";
import type { Strategy } from "./messages.ts";
import type { MigrateCall } from "./report.ts";

export interface PlanCall {
  readonly migration: MigrateCall;
  /** 0: the guest is not looked at. */
  readonly observeMs: number;
  /** Only what keeps the source whole until the commit is recommended. */
  readonly robust: boolean;
}

/** Longer brings nothing: the guest is another by then. */
export const OBSERVE_MS_MAX = 60_000;

export interface PlanView {
  readonly accepted: boolean;
  readonly refusals: readonly Refusal[];
  readonly negotiated: Readonly<Record<string, string>>;
  /** What could not be done, in words. */
  readonly notes: readonly string[];
  readonly link?: LinkView;
  readonly observation?: ObservationView;
  readonly predictions?: readonly PredictionView[];
  readonly recommended?: Strategy;
  readonly reason?: string;
}

export interface LinkView {
  readonly bytesPerSecond: number;
  readonly roundTripMs: number;
}

export interface ObservationView {
  readonly memoryBytes: number;
  readonly zeroBytes: number;
  /** Different memory that was dirtied while it looked, and for how long it did. */
  readonly workingSetBytes: number;
  readonly seconds: number;
  /** Pages that were seen dirty, with repeats, at the rate of the looks. */
  readonly dirtyBytesPerSecond: number;
  readonly dirtyCurve: readonly { readonly seconds: number; readonly bytes: number }[];
  /** Guest bytes over encoded ones; of pages that are sent whole, and of ones that are sent again. */
  readonly zstdRatio: number;
  readonly deltaRatio: number;
  /** The source host's processors, times those that the model's figures are of; 0 from an agent that did not measure it. */
  readonly hostSpeed: number;
  readonly cost: ObservationCostView;
}

export interface ObservationCostView {
  readonly seconds: number;
  readonly agentCpuSeconds: number;
  /** Missing where the host does not tell. */
  readonly qemuCpuSeconds?: number;
  readonly processorsWaited?: number;
  readonly processorsWaitedBefore?: number;
}

export interface IntervalView {
  readonly low: number;
  readonly expected: number;
  readonly high: number;
}

export interface PredictionView {
  readonly strategy: Strategy;
  /** Both hosts can do it. */
  readonly offered: boolean;
  /** "yes", "no" or "unsure"; of one that does not, there are no figures. */
  readonly converges: string;
  readonly totalSeconds?: IntervalView;
  readonly downtimeMs?: IntervalView;
  readonly bytes?: IntervalView;
}
