/** Tests what the model predicts for each strategy. */
import fc from "fast-check";
import t from "tap";
import { curveOfSamples, faster } from "../../../shared/model/dirty-curve.ts";
import {
  type AgentCosts,
  type PredictionInput,
  USUAL_COSTS,
  USUAL_POSTCOPY,
} from "../../../shared/model/observation.ts";
import { predict, STRATEGIES } from "../../../shared/model/predict.ts";
import { curveOfGroups } from "../../support/dirty-groups.ts";

const GIGABIT = 119e6;
const still = { pagesWithin: () => 0 };
const input = (changes: {
  guest?: Partial<PredictionInput["guest"]>;
  link?: Partial<PredictionInput["link"]>;
  costs?: Partial<AgentCosts>;
  wishes?: Partial<PredictionInput["wishes"]>;
}): PredictionInput => ({
  guest: {
    pages: 131_136,
    zeroPages: 80_000,
    dirty: still,
    firstCopyBytes: 1860,
    dirtiedPageBytes: 1860,
    deltaBytes: () => 30,
    paused: false,
    ...changes.guest,
  },
  link: { bytesPerSecond: GIGABIT, roundTripMs: 0.3, ...changes.link },
  costs: { ...USUAL_COSTS, ...changes.costs },
  postcopy: USUAL_POSTCOPY,
  wishes: {
    downtimeTargetMs: 300,
    deadlineMs: 0,
    robustnessFirst: false,
    basePages: 65_536,
    heldPagesMax: 8192,
    syncsPerSecond: 20,
    ...changes.wishes,
  },
});

t.test("the copy of an idle guest takes its bytes over the bandwidth, and the fixed costs", async (t) => {
  const costs = { microsPerFirstCopy: 0, microsPerZeroPage: 0 };
  const { totalMs, bytes, downtimeMs, converges } = predict("precopy", input({ costs }));
  const content = (131_136 - 80_000) * 1860;
  const fixed = USUAL_COSTS.startMs + USUAL_COSTS.switchMs + USUAL_COSTS.fixedDowntimeMs;
  t.ok(Math.abs(totalMs.expected - (1000 * content) / GIGABIT - fixed) < 40, `${totalMs.expected} ms`);
  t.ok(Math.abs(bytes.expected - content - USUAL_COSTS.fixedBytes) < 0.01 * content);
  t.ok(downtimeMs.expected < 50);
  t.equal(converges, "yes");
});

t.test("a guest that dirties more than the link carries does not converge, and what is bounded stays so", async (t) => {
  const wild = {
    dirty: curveOfSamples([{ seconds: 0.1, pages: 8192 }], 8192),
    deltaBytes: () => 4100,
    firstCopyBytes: 4100,
    dirtiedPageBytes: 4100,
  };
  const given = input({ guest: wild, link: { bytesPerSecond: 25e6 } });
  const precopy = predict("precopy", given);
  t.equal(precopy.converges, "no");
  t.equal(precopy.totalMs.expected, Number.POSITIVE_INFINITY);
  for (const strategy of ["stop-and-copy", "postcopy", "hybrid"] as const) {
    const { totalMs, bytes, converges } = predict(strategy, given);
    t.equal(converges, "yes", strategy);
    t.ok(Number.isFinite(totalMs.high) && Number.isFinite(bytes.high));
  }
});

t.test("near the limit the prediction is unsure", async (t) => {
  const dirty = curveOfSamples([{ seconds: 0.5, pages: 16_384 }], 16_384);
  const at = (bytesPerSecond: number) =>
    predict(
      "precopy",
      input({
        guest: { dirty, deltaBytes: () => 2000 },
        link: { bytesPerSecond },
        costs: { microsPerAgain: 1 },
        wishes: { downtimeTargetMs: 100 },
      }),
    ).converges;
  t.same([at(20e6), at(66e6), at(300e6)], ["no", "unsure", "yes"]);
});

t.test("stop-and-copy stops the guest for the whole copy, and post-copy for next to nothing", async (t) => {
  const given = input({});
  const stopped = predict("stop-and-copy", given);
  t.ok(stopped.downtimeMs.expected > 0.6 * stopped.totalMs.expected);
  t.ok(predict("postcopy", given).downtimeMs.high < 100);
});

t.test("a paused guest is copied once, whatever it dirtied before", async (t) => {
  const dirty = curveOfSamples([{ seconds: 0.1, pages: 50_000 }], 50_000);
  const paused = predict("precopy", input({ guest: { dirty, paused: true } }));
  t.same(paused, predict("precopy", input({ guest: { paused: true } })));
});

const guests = fc.record({
  groups: fc.array(
    fc.record({
      pages: fc.integer({ min: 0, max: 50_000 }),
      timesPerSecond: fc.double({ min: 0.001, max: 1000, noNaN: true }),
    }),
    { maxLength: 4 },
  ),
  zeroPages: fc.integer({ min: 0, max: 131_136 }),
  firstCopyBytes: fc.integer({ min: 50, max: 4100 }),
  dirtiedPageBytes: fc.integer({ min: 50, max: 4100 }),
  deltaBytes: fc.integer({ min: 5, max: 4100 }),
  bytesPerSecond: fc.double({ min: 1e5, max: 5e9, noNaN: true }),
  downtimeTargetMs: fc.integer({ min: 30, max: 2000 }),
  basePages: fc.integer({ min: 0, max: 100_000 }),
});

/** The local minimum is approached and not solved for, so figures may be off by this fraction. */
const SLACK = 1e-3;

t.test("more bandwidth never predicts a longer migration, and more dirtying never a shorter one", async () => {
  const factor = fc.double({ min: 1, max: 100, noNaN: true });
  fc.assert(
    fc.property(guests, factor, factor, (given, moreLink, moreDirty) => {
      const {
        groups,
        zeroPages,
        firstCopyBytes,
        dirtiedPageBytes,
        deltaBytes,
        bytesPerSecond,
        downtimeTargetMs,
        basePages,
      } = given;
      const dirty = curveOfGroups(groups);
      const at = (link: number, rate: number): PredictionInput =>
        input({
          guest: {
            zeroPages,
            firstCopyBytes,
            dirtiedPageBytes,
            deltaBytes: () => deltaBytes,
            dirty: faster(dirty, rate),
          },
          link: { bytesPerSecond: bytesPerSecond * link },
          wishes: { downtimeTargetMs, basePages },
        });
      for (const strategy of STRATEGIES) {
        const before = predict(strategy, at(1, 1));
        const wider = predict(strategy, at(moreLink, 1));
        const busier = predict(strategy, at(1, moreDirty));
        for (const end of ["low", "expected", "high"] as const) {
          if (wider.totalMs[end] > before.totalMs[end] * (1 + SLACK)) return false;
          if (busier.totalMs[end] < before.totalMs[end] * (1 - SLACK)) return false;
        }
        const { totalMs, bytes, downtimeMs } = before;
        for (const { low, expected, high } of [totalMs, bytes, downtimeMs])
          if (!(low <= expected && expected <= high)) return false;
      }
      return true;
    }),
    { numRuns: 300 },
  );
});
