/** Tests how an observation becomes the input of the model. */
import t from "tap";
import type { Observed } from "../../../agent-source/planning/observe-guest.ts";
import { planInput } from "../../../agent-source/planning/plan-input.ts";
import { USUAL_COSTS } from "../../../shared/model/observation.ts";

const wishes = {
  downtimeTargetMs: 300,
  deadlineMs: 0,
  robustnessFirst: false,
  basePages: 65_536,
  heldPagesMax: 8192,
  syncsPerSecond: 20,
};
const terms = { delta: true, zstd: true, wishes, zstdWorkers: 1 };
const observed: Observed = {
  pages: 1000,
  zeroPages: 400,
  firstCopySeconds: 0.5,
  observedSeconds: 5,
  dirty: [{ seconds: 1, pages: 100 }],
  dirtyBytesPerSecond: 1e6,
  workingSetPages: 100,
  paused: false,
  deltas: [
    { seconds: 1, pages: 10, wholePages: 0, bytes: 40 },
    { seconds: 3, pages: 10, wholePages: 5, bytes: 80 },
  ],
  levels: [
    { level: -5, pageBytes: 2000, dirtiedPageBytes: 2200, bytesPerSecond: 500e6, deltaRatios: [1, 1] },
    { level: 3, pageBytes: 1500, dirtiedPageBytes: 1800, bytesPerSecond: 200e6, deltaRatios: [0.5, 0.25] },
  ],
  hostSpeed: 1,
  cost: { seconds: 6, agentCpuSeconds: 1 },
};
const slow = { bytesPerSecond: 12.5e6, roundTripMs: 1 };

t.test("the model is told what was observed, at the zstd level that the link asks for", async (t) => {
  const { guest } = planInput(observed, slow, terms);
  t.match(guest, { pages: 1000, zeroPages: 400, firstCopyBytes: 1500, paused: false });
  t.equal(guest.dirty.pagesWithin(0.5), 50);
  t.equal(planInput(observed, { ...slow, bytesPerSecond: 240e6 }, terms).guest.firstCopyBytes, 2000);
  t.equal(planInput(observed, slow, { ...terms, zstd: false }).guest.firstCopyBytes, 4096);
});

t.test("the cost of a page is the cost on this host", async (t) => {
  const on = (hostSpeed: number) => planInput({ ...observed, hostSpeed }, slow, terms).costs;
  t.same(on(1), USUAL_COSTS, "this is the host on which the usual costs were measured");
  const fast = on(2);
  t.ok(fast.microsPerFirstCopy < 0.7 * USUAL_COSTS.microsPerFirstCopy, "a faster host takes less time");
  t.ok(fast.microsPerFirstCopy > 0.5 * USUAL_COSTS.microsPerFirstCopy, "not all of the cost is the processors");
  t.equal(fast.startMs / USUAL_COSTS.startMs, fast.microsPerAgain / USUAL_COSTS.microsPerAgain);
  t.match(
    fast,
    { tailMs: USUAL_COSTS.tailMs, fixedBytes: USUAL_COSTS.fixedBytes },
    "costs that depend on the link stay as they are",
  );
  t.ok(on(0.5).microsPerZeroPage > USUAL_COSTS.microsPerZeroPage);
});

t.test("a delta grows with the age of its base, and pages that are sent whole count as whole pages", async (t) => {
  const { deltaBytes } = planInput(observed, slow, terms).guest;
  t.equal(deltaBytes(0), 20);
  t.equal(deltaBytes(1), 20);
  t.equal(deltaBytes(3), 0.5 * 1800 + 0.5 * 80 * 0.25);
  t.equal(deltaBytes(2), (20 + 910) / 2);
  t.equal(deltaBytes(60), 910);
});

t.test("without deltas, or when nothing was dirtied, a page is sent whole", async (t) => {
  t.equal(planInput(observed, slow, { ...terms, delta: false }).guest.deltaBytes(1), 1800);
  t.equal(planInput({ ...observed, deltas: [] }, slow, terms).guest.deltaBytes(1), 1800);
});
