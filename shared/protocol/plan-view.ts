/**
 * What an operator asks the planner, and what the planner answers: field by field the messages PlanRequest and
 * PlanResponse of proto/ferry/v1/operator.proto.
 */
import type { Refusal } from "../fault.ts";
import type { Strategy } from "./messages.ts";
import type { MigrateCall } from "./report.ts";

export interface PlanCall {
  readonly migration: MigrateCall;
  /** How long to look at the guest. 0: the guest is not looked at, and nothing is predicted. */
  readonly observeMs: number;
}

/** The longest look at a guest, milliseconds. A longer look brings nothing: the guest behaves differently by then. */
export const OBSERVE_MS_MAX = 60_000;

export interface PlanView {
  readonly accepted: boolean;
  readonly refusals: readonly Refusal[];
  readonly negotiated: Readonly<Record<string, string>>;
  /** What could not be done, and what the operator should know about the contract; in words. */
  readonly notes: readonly string[];
  readonly link?: LinkView;
  readonly observation?: ObservationView;
  readonly predictions?: readonly PredictionView[];
  readonly recommended?: Strategy;
  readonly reason?: string;
}

interface LinkView {
  readonly bytesPerSecond: number;
  readonly roundTripMs: number;
}

export interface ObservationView {
  readonly memoryBytes: number;
  readonly zeroBytes: number;
  /** Memory that the guest dirtied in `seconds`, each page counted once. */
  readonly workingSetBytes: number;
  /** For how long the guest was looked at. */
  readonly seconds: number;
  /**
   * Pages that were seen dirty, counted once in each look; the setting transfer.syncRate says how often the agent
   * looks.
   */
  readonly dirtyBytesPerSecond: number;
  /** Memory that the guest dirties within times of these lengths, each page counted once. */
  readonly dirtyCurve: readonly { readonly seconds: number; readonly bytes: number }[];
  /** Guest bytes over encoded bytes, for pages that are sent whole; 0 where there were none. */
  readonly zstdRatio: number;
  /** Guest bytes over encoded bytes, for pages that are sent again a second later; 0 where there were none. */
  readonly deltaRatio: number;
  /**
   * Speed of the source host's processors, as a multiple of the speed of those on which the model's figures were
   * measured. It is 0 from an agent that did not measure it.
   */
  readonly hostSpeed: number;
  readonly cost: ObservationCostView;
}

/** What looking at the guest has cost. A figure that the host does not tell is missing. */
interface ObservationCostView {
  /** For how long QEMU kept track of the guest's writes. */
  readonly seconds: number;
  readonly agentCpuSeconds: number;
  /** Processor time of QEMU, without the guest's own processors. */
  readonly qemuCpuSeconds?: number;
  /** Part of the time, 0 to 1, in which the guest's processors waited for a processor of the host. */
  readonly processorsWaited?: number;
  /** The value of `processorsWaited` just before the guest was looked at. */
  readonly processorsWaitedBefore?: number;
}

export interface IntervalView {
  readonly low: number;
  readonly expected: number;
  /** 0: no end is in sight. */
  readonly high: number;
}

export interface PredictionView {
  readonly strategy: Strategy;
  /** True when both hosts can do this strategy, and the options do not exclude it. */
  readonly offered: boolean;
  /** "yes", "no" or "unsure". For a strategy that does not converge the figures below are missing. */
  readonly converges: string;
  readonly totalSeconds?: IntervalView;
  readonly downtimeMs?: IntervalView;
  readonly bytes?: IntervalView;
}
