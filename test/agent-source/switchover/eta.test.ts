/** Tests `EtaEstimator` on simulated copies: what it says of the end on the way. */
import t from "tap";
import { type CopyState, EtaEstimator } from "../../../agent-source/switchover/eta.ts";

const plan = { downtimeTargetMs: 300, fixedDowntimeMs: 25, syncsPerSecond: 20 };
const PAGES = 100_000;
const STEP = 0.05;

const still: CopyState = {
  elapsedMs: 0,
  begun: true,
  firstPassDone: false,
  sweptPages: 0,
  residualPages: 0,
  residualBytes: 0,
  residualWholeBytes: 5000,
  sentPages: 0,
  backlogged: false,
  bytesPerPage: 2000,
  inFlightBytes: 0,
  inFlightZeroPages: 0,
  resendCostIsMeasured: true,
  bytesPerSecond: 49.9e6,
  roundTripMs: 1,
  microsPerPage: 4,
  drained: false,
  linkIsDown: false,
  paused: false,
  pageCount: PAGES,
  seenPages: 0,
  capturedContentPages: 0,
  sentContentPages: 0,
  sentFullPages: 0,
  residualFullPages: 0,
  holdPages: 0,
  wholePageBytes: 2000,
};

interface Guest {
  /** How many different pages the guest dirties within so many seconds. */
  readonly dirties: (seconds: number) => number;
}

/**
 * Copies pages of 2000 bytes over about 50 MB/s, which is 25 000 a second. All pages have content.
 * @returns the estimates on the way, and when the copy could have ended
 */
function copy(guest: Guest, { untilSeconds }: { untilSeconds: number }) {
  const estimator = new EtaEstimator(plan);
  const perStep = 25_000 * STEP;
  const said: { readonly at: number; readonly eta: number | undefined }[] = [];
  estimator.begins(0);
  let now = 0;
  let sent = 0;
  const say = (changes: Partial<CopyState>): void => {
    const state = { ...still, sentContentPages: sent, capturedContentPages: PAGES, seenPages: PAGES, ...changes };
    estimator.measure(state, now);
    said.push({ at: now, eta: estimator.etaSeconds(state, now) });
  };
  while (sent < PAGES) {
    sent += perStep;
    now += STEP;
    say({ seenPages: sent, capturedContentPages: sent });
  }
  estimator.section(PAGES, true, true, now);
  let dirty = guest.dirties(now);
  estimator.section(dirty, true, false, now);
  // the link takes 0.25 s for the pages that fit what is left of the target
  while (now < untilSeconds && dirty > 0.25 * 25_000) {
    const passBegan = now;
    for (let left = dirty; left > 0; left -= perStep) {
      sent += Math.min(left, perStep);
      now += STEP;
      say({ firstPassDone: true, backlogged: true, residualPages: left, residualBytes: left * 2000 });
    }
    dirty = guest.dirties(now - passBegan);
    estimator.section(dirty, true, false, now);
  }
  return { said, endedAt: now, estimator };
}

const errors = ({ said, endedAt }: ReturnType<typeof copy>, from: number): number[] =>
  said
    .filter(({ at }) => at >= from)
    .map(({ at, eta }) => Math.abs((eta ?? Number.POSITIVE_INFINITY) - (endedAt - at)));

t.test("the end of an idle guest's copy is foreseen from the first page on", async (t) => {
  const copied = copy({ dirties: () => 0 }, { untilSeconds: 60 });
  t.ok(Math.max(...errors(copied, 0.2)) < 0.8, "0.5 s are assumed for what the guest dirties, until that is seen");
});

t.test("the end of a converging guest's copy is foreseen once its first pass is done", async (t) => {
  // the guest dirties half as fast as the link sends
  const copied = copy({ dirties: (seconds) => Math.min(80_000, 12_500 * seconds) }, { untilSeconds: 60 });
  const late = errors(copied, 4.2);
  const mean = late.reduce((sum, one) => sum + one, 0) / late.length;
  t.ok(mean < 0.5, `off by ${mean.toFixed(2)} s of ${(copied.endedAt - 4).toFixed(1)} s`);
});

t.test("a guest that dirties more than the link carries has no end in sight", async (t) => {
  const { said } = copy({ dirties: (seconds) => Math.min(PAGES, 30_000 * seconds) }, { untilSeconds: 20 });
  t.ok(
    said.filter(({ at }) => at > 4.2).every(({ eta }) => eta === undefined),
    "there is no estimate from the moment at which this is known",
  );
});

t.test("post-copy is foreseen to end with what is left, once a guest that is too quick was seen", async (t) => {
  const estimator = new EtaEstimator(plan);
  const left = { residualPages: 10_000, residualBytes: 20e6, backlogged: true };
  const state = { ...still, ...left, firstPassDone: true };
  estimator.begins(0);
  t.equal(estimator.prospects(state, 3), undefined, "what the guest dirties was not seen yet");
  estimator.section(PAGES, true, true, 3);
  estimator.section(90_000, true, false, 6);
  t.equal(estimator.prospects(state, 6), undefined, "it was seen in the first pass only");
  // 20 000 pages take the link 0.8 s, which is more than twice the downtime target
  estimator.section(20_000, false, false, 6.9);
  const seen = estimator.prospects(state, 7);
  t.equal(seen?.precopySeconds, undefined, "the guest dirties 30 000 pages a second, and the link sends 25 000");
  // 10 000 pages that were captured, 70 000 of this pass that QEMU has still, and 30 000 that were dirtied since; each
  // has 2000 bytes, the link carries 50 MB/s, and page requests add a tenth
  t.ok(Math.abs((seen?.postcopySeconds ?? 0) - 4.89) < 0.05, `${seen?.postcopySeconds} s`);
  t.match(seen, { linkBytesPerSecond: 49.9e6, encodedBytesPerSecond: 60e6 });
  for (const less of [
    { firstPassDone: false },
    { linkIsDown: true },
    { resendCostIsMeasured: false },
    { paused: true },
    { roundTripMs: 140 },
  ])
    t.equal(estimator.prospects({ ...state, ...less }, 7), undefined, JSON.stringify(less));
});

t.test(
  "a guest that is quiet after the first pass has an end in sight, and that is said after one more pass",
  async (t) => {
    const estimator = new EtaEstimator(plan);
    const state = { ...still, firstPassDone: true };
    estimator.begins(0);
    estimator.section(PAGES, true, true, 3);
    estimator.section(90_000, true, false, 6);
    estimator.section(100, true, false, 6.1);
    t.ok((estimator.prospects(state, 6.1)?.precopySeconds ?? 99) < 3);
  },
);

t.test("while the link is down, and before the first page, there is no end in sight", async (t) => {
  const estimator = new EtaEstimator(plan);
  t.equal(estimator.etaSeconds(still, 1), undefined);
  t.equal(estimator.etaSeconds({ ...still, firstPassDone: true, linkIsDown: true }, 1), undefined);
});

t.test("once the switch was decided, what is left is counted down to nothing", async (t) => {
  const estimator = new EtaEstimator(plan);
  const state = { ...still, firstPassDone: true };
  estimator.decided(state, 100, 10);
  const [first, later, last] = [10, 10.05, 20].map((now) => estimator.etaSeconds(state, now));
  t.ok(first !== undefined && first >= 0.1 && first < 0.3);
  t.ok(later !== undefined && first !== undefined && Math.abs(first - later - 0.05) < 1e-9);
  t.equal(last, 0);
});

t.test("a guest that is stopped before it was copied arrives when the rest was copied", async (t) => {
  const estimator = new EtaEstimator(plan);
  estimator.begins(10);
  estimator.decided(still, 30, 10);
  const half = { ...still, seenPages: 50_000, capturedContentPages: 50_000, sentContentPages: 50_000 };
  estimator.measure(half, 12);
  const eta = estimator.etaSeconds(half, 12) ?? 0;
  t.ok(eta > 1.9 && eta < 3, `${eta} s for the other half`);
});

t.test("no more pages are expected to have content than QEMU has memory in use", async (t) => {
  const estimator = new EtaEstimator(plan);
  estimator.begins(10);
  const half = { ...still, seenPages: 50_000, capturedContentPages: 50_000, sentContentPages: 50_000 };
  estimator.measure(half, 12);
  const without = estimator.etaSeconds(half, 12) ?? 0;
  estimator.resident(60_000 * 4096 + (64 << 20));
  const known = estimator.etaSeconds(half, 12) ?? 0;
  t.ok(known < without / 2, `${known} s, not ${without} s, for 10 000 pages`);
});
