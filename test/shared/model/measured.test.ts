/**
 * Tests the model against migrations that were measured: docs/results/demo.md and docs/results/eta.md. Both guests have
 * 512 MiB.
 */
import t from "tap";
import { curveOfSamples } from "../../../shared/model/dirty-curve.ts";
import { type PredictionInput, USUAL_COSTS, USUAL_POSTCOPY } from "../../../shared/model/observation.ts";
import { type Interval, predict } from "../../../shared/model/predict.ts";

const wishes = {
  downtimeTargetMs: 300,
  deadlineMs: 0,
  robustnessFirst: false,
  basePages: 65_536,
  heldPagesMax: 8192,
  syncsPerSecond: 20,
};
/** A guest that dirties 128 MiB, page after page, at 200 MB/s. */
const busy = {
  pages: 131_136,
  zeroPages: 80_017,
  dirty: curveOfSamples([{ seconds: 0.671, pages: 32_768 }], 32_768),
  firstCopyBytes: 2000,
  dirtiedPageBytes: 2000,
  deltaBytes: () => 5,
  paused: false,
};
const idle = {
  ...busy,
  zeroPages: 47_240,
  dirty: curveOfSamples([{ seconds: 1, pages: 30 }], 1000),
  firstCopyBytes: 1900,
  dirtiedPageBytes: 1900,
};
/** What links of 1 Gbit/s and of 100 Mbit/s carry of payload. */
const FAST = { bytesPerSecond: 119e6, roundTripMs: 0.3 };
const SLOW = { bytesPerSecond: 12e6, roundTripMs: 0.3 };
/** The level of zstd follows the link: pages become 2.45 times smaller instead of 2.17 times. */
const strong = 2.17 / 2.45;

interface Measured {
  readonly guest: PredictionInput["guest"];
  readonly link: PredictionInput["link"];
  readonly totalSeconds: readonly number[];
  readonly downtimeMs: readonly number[];
  readonly megabytes: readonly number[];
}

const MEASURED: Readonly<Record<string, Measured>> = {
  "the demo's guest at 1 Gbit/s": {
    guest: busy,
    link: FAST,
    totalSeconds: [1.6, 1.65, 1.92, 2.0, 2.02, 2.03, 2.06],
    downtimeMs: [29, 29, 33, 34, 35, 35, 38],
    megabytes: [99.6, 100, 101, 103.8, 105, 105.7, 108.2],
  },
  "the demo's guest at 100 Mbit/s": {
    guest: { ...busy, firstCopyBytes: 2000 * strong },
    link: SLOW,
    totalSeconds: [7.63, 7.7, 7.7, 7.81, 7.8, 7.79],
    downtimeMs: [34, 35, 28, 30, 57, 31],
    megabytes: [88.6, 89.4, 89.5, 90.7, 89.7, 89.3],
  },
  "an idle guest of 328 MiB at 1 Gbit/s": {
    guest: idle,
    link: FAST,
    totalSeconds: [2.41, 2.12, 2.32, 2.29],
    downtimeMs: [56, 29, 64, 52],
    megabytes: [172.7, 169.5, 179.2, 172.7],
  },
  "an idle guest of 328 MiB at 100 Mbit/s": {
    guest: { ...idle, firstCopyBytes: 1900 * strong },
    link: SLOW,
    totalSeconds: [12.45, 12.55, 12.6, 12.7],
    downtimeMs: [40, 40, 37, 26],
    megabytes: [147.2, 147.9, 149, 150.1],
  },
};

const mean = (values: readonly number[]): number => values.reduce((sum, one) => sum + one, 0) / values.length;

for (const [what, { guest, link, totalSeconds, downtimeMs, megabytes }] of Object.entries(MEASURED))
  t.test(`the prediction agrees with what was measured: ${what}`, async (t) => {
    const costs = USUAL_COSTS;
    const prediction = predict("precopy", { guest, link, costs, postcopy: USUAL_POSTCOPY, wishes });
    const near = (name: string, interval: Interval, measured: number, within: number): void => {
      const off = interval.expected / measured - 1;
      const text = `${name}: ${interval.expected.toFixed(0)} (${interval.low.toFixed(0)} to ${interval.high.toFixed(0)}), measured ${measured.toFixed(0)}, ${(100 * off).toFixed(0)} %`;
      t.ok(Math.abs(off) < within && interval.low <= 1.1 * measured && interval.high >= measured / 1.1, text);
      t.comment(text);
    };
    t.equal(prediction.converges, "yes");
    near("total, ms", prediction.totalMs, 1000 * mean(totalSeconds), 0.15);
    near("bytes", prediction.bytes, 1e6 * mean(megabytes), 0.1);
    near("downtime, ms", prediction.downtimeMs, mean(downtimeMs), 0.5);
  });
