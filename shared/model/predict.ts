/**
 * Predicts what each strategy would take: total time, downtime and bytes. The formulas, units and assumptions are in
 * docs/design/model.md.
 *
 * A prediction evaluates the model at three points: as observed, with every input at the good end of what it may be,
 * and with every input at the bad end. More bandwidth never makes a migration longer, and more dirtying never makes it
 * shorter, so the two ends are an interval.
 */
import { faster } from "./dirty-curve.ts";
import type { PredictionInput } from "./observation.ts";
import { closeIn, copyDirtied, type PassCosts } from "./passes.ts";
import { HOLD_SHARE, ROUND_TRIPS, SWEEP_SECONDS } from "./switchover.ts";

export const STRATEGIES = ["stop-and-copy", "precopy", "postcopy", "hybrid"] as const;
export type ModelStrategy = (typeof STRATEGIES)[number];

/** An expected figure, and the ends between which it may lie. Infinity stands for a migration that does not end. */
export interface Interval {
  readonly low: number;
  readonly expected: number;
  readonly high: number;
}

export interface Prediction {
  readonly strategy: ModelStrategy;
  /** The time from the operator's command to RESUME, and in post-copy to the last page. */
  readonly totalMs: Interval;
  readonly downtimeMs: Interval;
  readonly bytes: Interval;
  /** `unsure` when the migration converges at some of the three points only. */
  readonly converges: "yes" | "unsure" | "no";
}

/** The model at one point. */
interface Outcome {
  readonly totalMs: number;
  readonly downtimeMs: number;
  readonly bytes: number;
}

const NEVER: Outcome = {
  totalMs: Number.POSITIVE_INFINITY,
  downtimeMs: Number.POSITIVE_INFINITY,
  bytes: Number.POSITIVE_INFINITY,
};

/**
 * How far an input may be from what was observed: a factor at the bad end, and its inverse at the good end. These
 * factors are a judgement, not statistics (docs/design/model.md#intervals).
 */
const RATE_ERROR = 1.3;
const LINK_ERROR = 1.05;
const BYTES_ERROR = 1.1;
const COST_ERROR = 1.3;

/** A page counts as hot when it was dirtied again within this time: an epoch of heat (shared/page/heat-map.ts). */
const HOT_SECONDS = 0.25;
/** The bytes of one zero page: its part of the record of a run. */
const ZERO_PAGE_BYTES = 0.01;

export function predict(strategy: ModelStrategy, input: PredictionInput): Prediction {
  const run = OUTCOMES[strategy];
  const expected = run(input);
  const good = run(shifted(input, -1));
  const bad = run(shifted(input, 1));
  const interval = (of: (outcome: Outcome) => number): Interval => ({
    // a faster link lets more pages be held, and held pages are sent at the end, so the good end may have more bytes
    // than the bad end
    low: Math.min(of(good), of(expected), of(bad)),
    expected: of(expected),
    high: Math.max(of(good), of(expected), of(bad)),
  });
  const ending = [good, expected, bad].filter(({ totalMs }) => Number.isFinite(totalMs)).length;
  return {
    strategy,
    totalMs: interval(({ totalMs }) => totalMs),
    downtimeMs: interval(({ downtimeMs }) => downtimeMs),
    bytes: interval(({ bytes }) => bytes),
    converges: ending === 3 ? "yes" : ending === 0 ? "no" : "unsure",
  };
}

const OUTCOMES: Readonly<Record<ModelStrategy, (input: PredictionInput) => Outcome>> = {
  "stop-and-copy": stopAndCopy,
  precopy,
  postcopy,
  hybrid,
};

/** Moves every input to an end of what it may be. @param end -1 for the good end, 1 for the bad end */
function shifted(input: PredictionInput, end: -1 | 1): PredictionInput {
  const { guest, link, costs } = input;
  return {
    ...input,
    guest: {
      ...guest,
      dirty: faster(guest.dirty, RATE_ERROR ** end),
      firstCopyBytes: guest.firstCopyBytes * BYTES_ERROR ** end,
      dirtiedPageBytes: guest.dirtiedPageBytes * BYTES_ERROR ** end,
      deltaBytes: (seconds) => guest.deltaBytes(seconds) * BYTES_ERROR ** end,
    },
    link: { ...link, bytesPerSecond: link.bytesPerSecond / LINK_ERROR ** end },
    costs: {
      ...costs,
      microsPerFirstCopy: costs.microsPerFirstCopy * COST_ERROR ** end,
      microsPerAgain: costs.microsPerAgain * COST_ERROR ** end,
      microsPerZeroPage: costs.microsPerZeroPage * COST_ERROR ** end,
      startMs: costs.startMs * COST_ERROR ** end,
      switchMs: costs.switchMs * COST_ERROR ** end,
      fixedDowntimeMs: costs.fixedDowntimeMs * COST_ERROR ** end,
      tailMs: costs.tailMs * COST_ERROR ** end,
    },
  };
}

/** The time of a page. Link and agents work side by side, so it is that of the slower one. */
const secondsOf = (bytes: number, bytesPerSecond: number, micros: number): number =>
  Math.max(bytes / Math.max(1, bytesPerSecond), micros / 1e6);

/** The copy of every page once. `fullSeconds` is the time of one page with content. */
function onePass({ guest, link, costs }: PredictionInput): { seconds: number; bytes: number; fullSeconds: number } {
  const content = Math.max(0, guest.pages - guest.zeroPages);
  const fullSeconds = secondsOf(guest.firstCopyBytes, link.bytesPerSecond, costs.microsPerFirstCopy);
  const zeroSeconds = secondsOf(ZERO_PAGE_BYTES, link.bytesPerSecond, costs.microsPerZeroPage);
  return {
    fullSeconds,
    seconds: content * fullSeconds + guest.zeroPages * zeroSeconds,
    bytes: costs.fixedBytes + content * guest.firstCopyBytes + guest.zeroPages * ZERO_PAGE_BYTES,
  };
}

const waitMs = ({ link }: PredictionInput): number => ROUND_TRIPS * link.roundTripMs;

function stopAndCopy(input: PredictionInput): Outcome {
  const { costs } = input;
  const { seconds, bytes } = onePass(input);
  const downtimeMs = 1000 * seconds + costs.fixedDowntimeMs + waitMs(input);
  return { totalMs: costs.startMs + costs.switchMs + downtimeMs, downtimeMs, bytes };
}

/**
 * The mean cost of a page that is sent again: as a delta where its base was kept, else whole.
 * @param dirtied how many pages are sent again, each of which would need a base
 */
function again({ guest, costs, wishes }: PredictionInput, dirtied: number) {
  const withBase = Math.min(1, wishes.basePages / Math.max(1, dirtied));
  return {
    micros: withBase * costs.microsPerAgain + (1 - withBase) * Math.max(costs.microsPerAgain, costs.microsPerFirstCopy),
    // a delta that is longer than the page is not sent
    bytes: (age: number) =>
      withBase * Math.min(guest.deltaBytes(age), guest.dirtiedPageBytes) + (1 - withBase) * guest.dirtiedPageBytes,
  };
}

/** What the passes after the first copy cost, and what may be left for the end. */
function repeating(input: PredictionInput, first: ReturnType<typeof onePass>) {
  const { guest, link, costs, wishes } = input;
  const dirty = guest.paused ? { pagesWithin: () => 0 } : guest.dirty;
  const page = again(input, dirty.pagesWithin(first.seconds));
  const lateBytes = page.bytes(HOT_SECONDS);
  /** The time of a page while the guest is stopped. No other page is under way then: agents and link work in turn. */
  const stoppedMs = page.micros / 1000 + (1000 * lateBytes) / Math.max(1, link.bytesPerSecond);
  const constantMs = costs.fixedDowntimeMs + waitMs(input);
  const passCosts: PassCosts = {
    secondsPerPage: (age) => secondsOf(page.bytes(age), link.bytesPerSecond, page.micros),
    bytesPerPage: page.bytes,
    periodSeconds: 1 / wishes.syncsPerSecond,
    heldPages: Math.min(wishes.heldPagesMax, (HOLD_SHARE * wishes.downtimeTargetMs) / stoppedMs),
    stopPages: (wishes.downtimeTargetMs - constantMs) / stoppedMs,
  };
  return { dirty, lateBytes, stoppedMs, constantMs, passCosts };
}

function precopy(input: PredictionInput): Outcome {
  const { costs } = input;
  const first = onePass(input);
  const { dirty, lateBytes, stoppedMs, constantMs, passCosts } = repeating(input, first);
  const passes = copyDirtied(dirty, passCosts, first.seconds);
  if (!passes.converges) return NEVER;
  const closing = closeIn(dirty, passCosts, passes.lastSeconds, SWEEP_SECONDS);
  const last = dirty.pagesWithin(closing.lastSeconds);
  // hot pages are held until the switch is near, and sent while the guest still runs; the last sweep's pages are left
  const residual = Math.min(dirty.pagesWithin(HOT_SECONDS + closing.lastSeconds), passCosts.heldPages + last);
  const downtimeMs = constantMs + Math.max(costs.tailMs, last * stoppedMs);
  const endMs = constantMs + Math.max(costs.tailMs, residual * stoppedMs);
  const runningMs = costs.startMs + 1000 * (first.seconds + passes.seconds + closing.seconds) + costs.switchMs;
  const bytesAgain = passes.bytesSent + closing.bytesSent + residual * lateBytes;
  return { totalMs: runningMs + endMs, downtimeMs, bytes: first.bytes + bytesAgain };
}

function postcopy(input: PredictionInput): Outcome {
  const { costs } = input;
  const first = onePass(input);
  const downtimeMs = input.postcopy.postcopyFixedDowntimeMs + waitMs(input);
  const pagesMs = 1000 * first.seconds * (1 + input.postcopy.postcopyFaultOverhead);
  const bytes = first.bytes * (1 + input.postcopy.postcopyRequestBytes);
  return { totalMs: costs.startMs + downtimeMs + pagesMs, downtimeMs, bytes };
}

/**
 * One pass with the guest running, then post-copy for the pages that were dirtied in the pass. These pages are sent
 * whole, since post-copy discards the bases. Where precopy alone is quicker, hybrid counts as precopy: what is left
 * fits the downtime target by then, or deltas make it so much smaller that SwitchPolicy goes on with precopy.
 */
function hybrid(input: PredictionInput): Outcome {
  const { guest, link, costs } = input;
  const first = onePass(input);
  const left = guest.paused ? 0 : guest.dirty.pagesWithin(first.seconds);
  const downtimeMs = input.postcopy.postcopyFixedDowntimeMs + waitMs(input);
  const leftSeconds = left * secondsOf(guest.dirtiedPageBytes, link.bytesPerSecond, costs.microsPerFirstCopy);
  const leftMs = 1000 * leftSeconds * (1 + input.postcopy.postcopyFaultOverhead);
  const leftBytes = left * guest.dirtiedPageBytes * (1 + input.postcopy.postcopyRequestBytes);
  const totalMs = costs.startMs + 1000 * first.seconds + downtimeMs + leftMs;
  const alone = precopy(input);
  return alone.totalMs < totalMs ? alone : { totalMs, downtimeMs, bytes: first.bytes + leftBytes };
}
