/** Turns a plan into what the operator sees. Pure. */
import type { PredictionInput } from "../../shared/model/observation.ts";
import { type Interval, type Prediction, STRATEGIES } from "../../shared/model/predict.ts";
import type { Recommendation } from "../../shared/model/recommend.ts";
import type { Strategy } from "../../shared/protocol/messages.ts";
import type { IntervalView, ObservationView, PredictionView } from "../../shared/protocol/plan-view.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import type { Observed } from "./observe-guest.ts";

/**
 * The operator is shown how large a delta is for a page that is sent again this long after it was sent before, seconds.
 * On a slow link a page that is dirtied all the time is sent again about once in this time.
 */
const DELTA_AGE_SHOWN = 1;

export function observationView(observed: Observed, { guest }: PredictionInput): ObservationView {
  const delta = guest.deltaBytes(DELTA_AGE_SHOWN);
  const dirtied = observed.deltas.length > 0;
  return {
    memoryBytes: observed.pages * PAGE_SIZE,
    zeroBytes: observed.zeroPages * PAGE_SIZE,
    workingSetBytes: observed.workingSetPages * PAGE_SIZE,
    seconds: observed.observedSeconds,
    dirtyBytesPerSecond: observed.dirtyBytesPerSecond,
    dirtyCurve: observed.dirty.map(({ seconds, pages }) => ({ seconds, bytes: pages * PAGE_SIZE })),
    zstdRatio: guest.firstCopyBytes > 0 ? PAGE_SIZE / guest.firstCopyBytes : 0,
    deltaRatio: dirtied && delta > 0 ? PAGE_SIZE / delta : 0,
    hostSpeed: observed.hostSpeed,
    cost: observed.cost,
  };
}

export const predictionViews = (
  predictions: Recommendation["predictions"],
  offered: readonly Strategy[],
): readonly PredictionView[] => STRATEGIES.map((one) => predictionView(predictions[one], offered.includes(one)));

function predictionView({ strategy, converges, totalMs, downtimeMs, bytes }: Prediction, offered: boolean) {
  const base = { strategy, offered, converges };
  if (!Number.isFinite(totalMs.expected)) return base;
  return { ...base, totalSeconds: times(totalMs, 1e-3), downtimeMs: times(downtimeMs, 1), bytes: times(bytes, 1) };
}

/** Multiplies an interval by a factor. A high end that is infinite becomes 0, which says that no end is in sight. */
const times = ({ low, expected, high }: Interval, factor: number): IntervalView => ({
  low: low * factor,
  expected: expected * factor,
  high: Number.isFinite(high) ? high * factor : 0,
});
