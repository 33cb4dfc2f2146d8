/** Tests `StallDetector` on synthetic traces: the estimates that a guest and a link would give, 20 a second. */
import t from "tap";
import { StallDetector } from "../../../agent-source/switchover/stall-detector.ts";

const STEP_MS = 50;

interface Seen {
  readonly detector: StallDetector;
  /** When the migration became stalled, and when it was so no longer, milliseconds. */
  readonly changes: readonly (readonly [atMs: number, stalled: boolean])[];
}

/** @param estimateMs the estimate at a time; undefined while the link is down */
function follow(untilMs: number, estimateMs: (nowMs: number) => number | undefined): Seen {
  const detector = new StallDetector();
  const changes: [number, boolean][] = [];
  for (let now = 0; now <= untilMs; now += STEP_MS) {
    const before = detector.stalledMs(now) > 0;
    const estimate = estimateMs(now);
    if (estimate === undefined) detector.interrupted(now);
    else detector.estimated(estimate, now);
    const after = detector.stalledMs(now) > 0;
    if (after !== before) changes.push([now, after]);
  }
  return { detector, changes };
}

/** Noise of up to 20 %, the same in each run. */
const noise = (nowMs: number): number => 1 + 0.2 * Math.sin(nowMs * 12.9898) * Math.cos(nowMs * 0.00731);

/**
 * The estimates for a backlog of so many milliseconds of the link, to which the guest adds a share of each millisecond.
 */
const backlog =
  (startMs: number, dirtyShare: number, workingSetMs: number) =>
  (nowMs: number): number =>
    25 + Math.max(dirtyShare * workingSetMs, startMs - (1 - dirtyShare) * nowMs);

t.test("a guest that dirties less than the link carries is not stalled before it fits", async (t) => {
  for (const dirtyShare of [0, 0.3, 0.6, 0.8]) {
    const estimate = backlog(5000, dirtyShare, 200);
    const fitsAt = (5000 - dirtyShare * 200) / (1 - dirtyShare);
    t.same(follow(fitsAt, estimate).changes, [], `${dirtyShare} of the link`);
  }
});

t.test("a constant rate beyond the link becomes one stall after some windows", async (t) => {
  const { detector, changes } = follow(60_000, (now) => 812 * noise(now));
  t.equal(changes.length, 1);
  t.ok(changes[0]![0] >= 4000 && changes[0]![0] <= 10_000, `found after ${changes[0]![0]} ms`);
  t.ok(detector.stalledMs(60_000) > 50_000, "the stall counts from the low, which only later proves to be the low");
});

t.test("a rate that grows is a stall too", async (t) => {
  const { changes } = follow(20_000, (now) => 500 + now);
  t.same(
    changes.map(([, stalled]) => stalled),
    [true],
  );
});

t.test("the first seconds after the first pass are no stall, however large the backlog is", async (t) => {
  t.same(follow(3500, () => 812).changes, [], "it is not known yet that the estimate does not change");
  t.same(follow(20_000, backlog(30_000, 0.1, 100)).changes, [], "a long backlog shrinks by few percent a second");
});

t.test("a slow drain that makes progress is no stall", async (t) => {
  t.same(follow(60_000, (now) => 2000 * Math.exp(-now / 40_000)).changes, [], "the estimate falls by 2.5 % a second");
  t.same(
    follow(60_000, backlog(100_000, 0.8, 100)).changes,
    [],
    "100 s of the link are left, and four fifths of it is dirtied again",
  );
});

t.test("a sawtooth is judged by its lowest points", async (t) => {
  const sawtooth = (period: number) => (now: number) => 400 + (900 * (now % period)) / period;
  for (const period of [300, 1000, 2500]) {
    const { changes } = follow(60_000, sawtooth(period));
    t.equal(changes.length, 1, `a sawtooth of ${period} ms is one stall that stays one`);
  }
  const falling = (now: number): number => sawtooth(1000)(now) * Math.exp(-now / 20_000);
  t.same(follow(40_000, falling).changes, [], "there is no stall while the low points fall");
});

t.test("a guest whose phases change is judged by the phase it is in", async (t) => {
  // the guest dirties little for 10 s, much for 20 s, and then less and less
  const phases = (now: number): number =>
    now < 10_000 ? 500 : now < 30_000 ? 4000 : Math.max(310, 4000 - (now - 30_000) / 2);
  const { detector, changes } = follow(36_000, phases);
  t.same(
    changes.map(([, stalled]) => stalled),
    [true, false],
    "the stall lasts until the last phase, although that phase never gets below the first one",
  );
  t.ok(changes[1]![0] > 30_000 && changes[1]![0] < 35_000, `over at ${changes[1]![0]} ms`);
  t.equal(detector.stalledMs(36_000), 0);
  t.ok(detector.totalStalledMs(36_000) > 25_000);
});

t.test("one dip of a guest that was held up for a moment does not end a stall", async (t) => {
  const { changes } = follow(30_000, (now) => (now > 12_000 && now < 12_400 ? 1000 : 1700 * noise(now)));
  t.same(
    changes.map(([, stalled]) => stalled),
    [true],
  );
});

t.test("a cut link is no stall, and the backlog after the cut is judged afresh", async (t) => {
  const cut = (now: number): number | undefined => {
    if (now < 3000) return 600;
    if (now < 20_000) return undefined;
    return Math.max(310, 3000 - (now - 20_000) / 2);
  };
  t.same(follow(25_000, cut).changes, []);
  const stalledBefore = follow(40_000, (now) => (now > 15_000 && now < 18_000 ? undefined : 600));
  t.same(
    stalledBefore.changes.map(([, stalled]) => stalled),
    [true, false, true],
    "the stall ends with the cut, and is found again after it",
  );
});

t.test("a pass that is longer than a window counts as one, and some such windows make a stall", async (t) => {
  const detector = new StallDetector();
  for (let now = 0; now <= 16_000; now += 4000) detector.estimated(812, now);
  t.equal(detector.stalledMs(16_000), 0, "the windows last 4 s: the first is the low, and three were no new low");
  detector.estimated(812, 20_000);
  t.ok(detector.stalledMs(20_000) > 0);
});
