/**
 * Recommends a strategy for a guest, and says why, after the recommendations of Svärd et al. ("The Noble Art of Live VM
 * Migration"): precopy while it converges, since the source stays whole; hybrid or post-copy for a guest that no
 * precopy can follow. The rules are a table in docs/design/model.md#recommendation.
 */
import { PAGE_SIZE } from "../units.ts";
import type { PredictionInput } from "./observation.ts";
import { type ModelStrategy, type Prediction, predict, STRATEGIES } from "./predict.ts";

export interface Recommendation {
  readonly strategy: ModelStrategy;
  /** One sentence, with the figures on which the recommendation rests. */
  readonly reason: string;
  /** A prediction for each strategy, also for the strategies that were not offered. */
  readonly predictions: Readonly<Record<ModelStrategy, Prediction>>;
}

/** A guest that dirties less than this is idle, bytes per second. */
const IDLE = 1e6;
/**
 * Precopy is recommended for its safety as long as it takes at most this many times as long as a strategy that ends
 * whatever the guest does.
 */
export const WORTH = 2;
/** While precopy takes at most this many times as long as one copy, what the guest dirties hardly matters. */
const LITTLE = 1.25;
/** Hybrid is preferred while it takes at most this many times as long as post-copy: its guest waits for fewer pages. */
const HYBRID_WORTH = 1.5;

/** Recommends a strategy. @param offered the strategies that both hosts can do; `precopy` always is one */
export function recommend(input: PredictionInput, offered: readonly ModelStrategy[]): Recommendation {
  const predictions = predictAll(input);
  const choice = choose(input, predictions, offered);
  return { ...choice, predictions };
}

function predictAll(input: PredictionInput): Readonly<Record<ModelStrategy, Prediction>> {
  const [stop, precopy, postcopy, hybrid] = STRATEGIES;
  return {
    [stop]: predict(stop, input),
    [precopy]: predict(precopy, input),
    [postcopy]: predict(postcopy, input),
    [hybrid]: predict(hybrid, input),
  };
}

type Choice = Pick<Recommendation, "strategy" | "reason">;
type Predictions = Recommendation["predictions"];

function choose(input: PredictionInput, predictions: Predictions, offered: readonly ModelStrategy[]): Choice {
  const { guest, wishes } = input;
  const { precopy } = predictions;
  if (guest.paused && offered.includes("stop-and-copy"))
    return { strategy: "stop-and-copy", reason: "the guest is paused, so nobody waits for it: it is copied once" };
  const bounded = boundedOf(predictions, offered);
  if (wishes.robustnessFirst || bounded === undefined) return robust(input, predictions, wishes.robustnessFirst);
  if (!Number.isFinite(precopy.totalMs.expected)) {
    const found = `the guest dirties ${rate(input)}, and precopy over ${link(input)} ${notBelow(precopy)} ${wishes.downtimeTargetMs} ms`;
    return { strategy: bounded.strategy, reason: `${found}: ${bounded.strategy} is bounded, ${about(bounded)}` };
  }
  const { deadlineMs } = wishes;
  const surest = surestOf(predictions, offered) ?? bounded;
  if (deadlineMs > 0 && precopy.totalMs.high > deadlineMs && surest.totalMs.high < precopy.totalMs.high)
    return {
      strategy: surest.strategy,
      reason: `precopy may take ${upTo(precopy)}, more than the deadline of ${seconds(deadlineMs)}: ${surest.strategy} takes ${about(surest)}`,
    };
  if (precopy.totalMs.expected > WORTH * bounded.totalMs.expected)
    return {
      strategy: bounded.strategy,
      reason: `over ${link(input)} precopy would take ${about(precopy)} to follow a guest that dirties ${rate(input)}: ${bounded.strategy} takes ${about(bounded)}`,
    };
  return keepsUp(input, predictions);
}

/** Recommends precopy because it keeps up with the guest. */
function keepsUp(input: PredictionInput, predictions: Predictions): Choice {
  const { precopy } = predictions;
  const strategy = "precopy";
  const took = `precopy takes ${about(precopy)}, and the source stays whole until the grant`;
  if (input.guest.paused || bytesPerSecond(input) < IDLE)
    return { strategy, reason: `the guest dirties next to nothing: ${took}` };
  const once = predictions["stop-and-copy"].totalMs.expected;
  const more = Math.max(0, Math.round(100 * (precopy.totalMs.expected / once - 1)));
  if (precopy.totalMs.expected <= LITTLE * once)
    return { strategy, reason: `what the guest dirties (${rate(input)}) adds ${more} % to one copy of it: ${took}` };
  return {
    strategy,
    reason: `the guest dirties ${rate(input)}, which adds ${more} % to one copy of it, and ${link(input)} keeps up: ${took}`,
  };
}

/**
 * Chooses hybrid or post-copy, which end whatever the guest does: hybrid if it is offered and takes at most
 * HYBRID_WORTH times as long as post-copy, or if post-copy is not offered.
 * @returns undefined when neither is offered
 */
function boundedOf({ postcopy, hybrid }: Predictions, offered: readonly ModelStrategy[]): Prediction | undefined {
  const has = (one: Prediction): boolean => offered.includes(one.strategy);
  if (has(hybrid) && (!has(postcopy) || hybrid.totalMs.expected <= HYBRID_WORTH * postcopy.totalMs.expected))
    return hybrid;
  return has(postcopy) ? postcopy : undefined;
}

/**
 * Chooses hybrid or post-copy, whichever of those that are offered has the smaller `totalMs.high`, and so is sure to
 * end first.
 * @returns undefined when neither is offered
 */
const surestOf = ({ postcopy, hybrid }: Predictions, offered: readonly ModelStrategy[]): Prediction | undefined =>
  [hybrid, postcopy]
    .filter(({ strategy }) => offered.includes(strategy))
    .sort((one, other) => one.totalMs.high - other.totalMs.high)[0];

/**
 * Recommends precopy because hybrid and post-copy are ruled out. In precopy the source stays whole until the grant, so
 * no host that dies can take the guest with it.
 * @param asked true when the operator wants robustness first, false when neither hybrid nor post-copy is offered
 */
function robust(input: PredictionInput, predictions: Predictions, asked: boolean): Choice {
  if (predictions.precopy.converges === "yes") return keepsUp(input, predictions);
  const why = asked ? "robustness comes first" : "only strategies that keep the source whole are offered";
  const whether = predictions.precopy.converges === "no" ? "does not converge" : "may not converge";
  const stopped = seconds(predictions["stop-and-copy"].downtimeMs.expected);
  return {
    strategy: "precopy",
    reason: `${why}, but precopy ${whether}: the guest dirties ${rate(input)}, and the link carries ${linkRate(input)}; allow a larger downtime (stop-and-copy would be ${stopped}), or a deadline that forces it`,
  };
}

const notBelow = ({ converges }: Prediction): string =>
  converges === "no" ? "does not get below" : "hardly gets below";

const bytesPerSecond = ({ guest }: PredictionInput): number =>
  guest.paused ? 0 : PAGE_SIZE * guest.dirty.pagesWithin(1);

/** Writes bytes as millions, with a decimal below ten. */
export const megabytes = (bytes: number): string =>
  bytes < 10e6 ? (bytes / 1e6).toFixed(1) : (bytes / 1e6).toFixed(0);
/**
 * What the guest dirties per second, counted in different pages: precopy sends a page once, however often it is
 * written.
 */
const rate = (input: PredictionInput): string => `${megabytes(bytesPerSecond(input))} MB/s`;
const linkRate = ({ link }: PredictionInput): string => `${megabytes(link.bytesPerSecond)} MB/s`;
const link = (input: PredictionInput): string => `a link of ${linkRate(input)}`;
const seconds = (ms: number): string => (ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`);
const upTo = ({ totalMs }: Prediction): string =>
  Number.isFinite(totalMs.high) ? `up to ${seconds(totalMs.high)}` : "without end";
const about = ({ totalMs }: Prediction): string => `about ${seconds(totalMs.expected)}`;
