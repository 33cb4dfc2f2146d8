/** Tests which strategy is recommended for which guest, and what reason is given. */
import t from "tap";
import { curveOfSamples, type DirtyCurve } from "../../../shared/model/dirty-curve.ts";
import { type PredictionInput, USUAL_COSTS, USUAL_POSTCOPY } from "../../../shared/model/observation.ts";
import { STRATEGIES } from "../../../shared/model/predict.ts";
import { recommend } from "../../../shared/model/recommend.ts";

const loop = (pages: number, seconds: number): DirtyCurve => curveOfSamples([{ seconds, pages }], pages);

interface Case {
  readonly dirty: DirtyCurve;
  readonly deltaBytes?: number;
  readonly bitsPerSecond?: number;
  readonly deadlineMs?: number;
  readonly robustnessFirst?: boolean;
  readonly paused?: boolean;
}

const given = (one: Case): PredictionInput => ({
  guest: {
    pages: 131_136,
    zeroPages: 80_000,
    dirty: one.dirty,
    firstCopyBytes: 1860,
    dirtiedPageBytes: 1860,
    deltaBytes: () => one.deltaBytes ?? 30,
    paused: one.paused ?? false,
  },
  link: { bytesPerSecond: (one.bitsPerSecond ?? 1e9) / 8, roundTripMs: 0.3 },
  costs: USUAL_COSTS,
  postcopy: USUAL_POSTCOPY,
  wishes: {
    downtimeTargetMs: 300,
    deadlineMs: one.deadlineMs ?? 0,
    robustnessFirst: one.robustnessFirst ?? false,
    basePages: 65_536,
    heldPagesMax: 8192,
    syncsPerSecond: 20,
  },
});

const idle = loop(20, 1);
const busy = loop(32_768, 0.67);
/** A guest that writes fresh content all the time, more than a link of 1 Gbit/s carries. */
const wild = loop(40_000, 0.2);

const said = (one: Case, offered: readonly (typeof STRATEGIES)[number][] = STRATEGIES) => {
  const { strategy, reason } = recommend(given(one), offered);
  return [strategy, reason] as const;
};

t.test("precopy is recommended for an idle guest", async (t) => {
  t.match(said({ dirty: idle }), ["precopy", /dirties next to nothing: precopy takes about \d/]);
  t.match(said({ dirty: idle, bitsPerSecond: 1e7 }), ["precopy", /next to nothing/], "the same holds over a slow link");
});

t.test("precopy is recommended for a guest that computes, since what it dirties adds little", async (t) => {
  t.match(said({ dirty: loop(1000, 0.1) }), ["precopy", /dirties \(4\.1 MB\/s\) adds \d+ % to one copy/]);
});

t.test("precopy is recommended for a busy guest with small deltas, while the link keeps up", async (t) => {
  t.match(said({ dirty: busy }), ["precopy", /134 MB\/s.*the source stays whole/]);
});

t.test("a bounded strategy is recommended for a guest that no precopy can follow", async (t) => {
  const [strategy, reason] = said({ dirty: wild, deltaBytes: 4100 });
  t.ok(strategy === "hybrid" || strategy === "postcopy", strategy);
  t.match(reason, /dirties 164 MB\/s, and precopy over a link of 125 MB\/s .* below 300 ms: \w+ is bounded/);
  t.match(said({ dirty: wild, deltaBytes: 4100 }, ["precopy", "postcopy"])[0], "postcopy");
});

t.test("a bounded strategy is recommended on a slow link, when precopy takes much longer", async (t) => {
  const one = { dirty: loop(32_768, 3), deltaBytes: 1200, bitsPerSecond: 1e8 };
  t.match(said(one), [/hybrid|postcopy/, /./]);
});

t.test("a strategy that keeps the deadline is recommended when precopy may miss it", async (t) => {
  const dirty = loop(40_000, 0.8);
  t.match(said({ dirty, deltaBytes: 900 }), ["precopy", /./]);
  t.match(said({ dirty, deltaBytes: 900, deadlineMs: 1800 }), [
    /hybrid|postcopy/,
    /may take up to .* more than the deadline of 1\.8 s/,
  ]);
});

t.test("with robustness first precopy is recommended, and what to do where it does not converge", async (t) => {
  t.match(said({ dirty: busy, robustnessFirst: true }), ["precopy", /keeps up|adds/]);
  t.match(said({ dirty: wild, deltaBytes: 4100, robustnessFirst: true }), [
    "precopy",
    /robustness comes first, but precopy does not converge: .*larger downtime \(stop-and-copy would be .*deadline that forces it/,
  ]);
  t.match(said({ dirty: wild, deltaBytes: 4100 }, ["precopy", "stop-and-copy"]), [
    "precopy",
    /only strategies that keep/,
  ]);
});

t.test("stop-and-copy is recommended for a paused guest", async (t) => {
  t.match(said({ dirty: wild, paused: true }), ["stop-and-copy", /paused/]);
});

t.test("every strategy is predicted, also those that are not offered", async (t) => {
  t.same(Object.keys(recommend(given({ dirty: idle }), ["precopy"]).predictions), STRATEGIES);
});
