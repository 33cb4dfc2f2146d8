import t from "tap";
import { CopyObserver } from "../../../agent-source/switchover/copy-observer.ts";
import { EtaEstimator } from "../../../agent-source/switchover/eta.ts";
import { SwitchPolicy } from "../../../agent-source/switchover/switch-policy.ts";

interface Fixture {
  readonly watch: CopyObserver;
  /** Of the fake clock, milliseconds. */
  readonly now: { ms: number };
  readonly residual: { bytes: number };
  readonly link: { down: boolean; still: boolean; frames: number };
  readonly stalls: boolean[];
}

/** A watch over a copy that is nothing but the figures it is asked for. */
function fixture(): Fixture {
  const now = { ms: 1000 };
  const residual = { bytes: 100e6 };
  const link = { down: false, still: false, frames: 0 };
  const stalls: boolean[] = [];
  const scheduler = {
    residualPages: () => residual.bytes / 4096,
    residualBytes: () => residual.bytes,
    bytesPerDirtyPage: () => 4096,
    holdPages: 0,
    hasWork: true,
    get workBytes(): number {
      return residual.bytes / 2;
    },
    knowsAgain: true,
    heat: { seenPages: 50_000 },
    total: { fullPages: 10_000, deltaPages: 0 },
    pages: { pendingCount: 5000, pendingRoom: 1000, pendingWithBase: 0 },
  };
  const parts = {
    scheduler,
    sender: { inFlightBytes: 0, inFlightZeroPages: 0, microsPerPage: 2 },
    meter: { bytesPerSecond: 100e6, knownRoundTripMs: 1 },
    policy: new SwitchPolicy({ strategy: "precopy", downtimeTargetMs: 300, deadlineMs: 0, onDeadline: "cancel" }),
    holdPagesMax: 3000,
    outlook: new EtaEstimator({ downtimeTargetMs: 300, fixedDowntimeMs: 25, syncsPerSecond: 20 }),
    clock: { monotonicMs: () => now.ms },
    pageCount: 100_000,
    compressionRatio: () => 2,
    compressedFrames: () => link.frames,
    linkIsDown: () => link.down,
    standsStill: () => link.still,
    onStall: (stalled: boolean) => stalls.push(stalled),
  };
  return { watch: new CopyObserver(parts, now.ms), now, residual, link, stalls };
}

t.test("a stall is told once when it begins and once when it ends", async (t) => {
  const { watch, now, residual, stalls } = fixture();
  watch.firstPassDone = true;
  const go = (untilMs: number): void => {
    for (; now.ms < untilMs; now.ms += 50) watch.decide(watch.observe(true));
  };
  go(12_000);
  t.same(stalls, [true]);
  t.ok(watch.stalledMs > 5000);
  residual.bytes = 70e6;
  go(15_000);
  t.same(stalls, [true, false]);
  t.equal(watch.stalledMs, 0);
  t.ok(watch.totalStalledMs > 5000, "the result knows of it");
});

t.test("what is observed is encoded bytes, and whether the link is there", async (t) => {
  const { watch, link } = fixture();
  t.match(watch.observe(false), { residualBytes: 50e6, bytesPerPage: 2048, linkIsDown: false, drained: false });
  link.down = true;
  t.match(watch.observe(true), { linkIsDown: true, drained: true });
});

t.test("what is not held for its heat is time of the link and of the agents", async (t) => {
  const { watch, residual, link } = fixture();
  residual.bytes = 4096e4;
  // half of them are held: 5000 pages, two to one, at 100 MB/s; and 4 us for each
  t.equal(Math.round(watch.backlogMs), Math.round(20.48e6 / 2 / 100e3 + (10_000 * 4) / 1000));
  const seen = watch.observe(true);
  t.equal(watch.holdPages(seen), 3000, "never more than a part of the arena");
  link.still = true;
  t.equal(watch.holdPages(watch.observe(true)), 0, "a guest that stands still makes no later version");
});

t.test("what pages become that are sent again is known when frames of them were compressed", async (t) => {
  const { watch, link } = fixture();
  t.ok(watch.observe(true).knowsAgain, "without compression they are what they are");
  link.frames = 100;
  watch.observe(true);
  watch.firstPassDone = true;
  link.frames = 111;
  t.notOk(watch.observe(true).knowsAgain);
  link.frames = 112;
  t.ok(watch.observe(true).knowsAgain);
});

t.test("of a guest that stands still no downtime is foretold", async (t) => {
  const { watch, link } = fixture();
  watch.firstPassDone = true;
  t.same(watch.decide(watch.observe(true)).kind, "continue");
  t.ok(watch.estimatedDowntimeMs > 0);
  link.still = true;
  t.same(watch.decide(watch.observe(true)).kind, "continue", "and nothing is decided");
  t.equal(watch.estimatedDowntimeMs, 0);
});

t.test("the end is estimated anew some times a second, and counted down between", async (t) => {
  const { watch, now, residual } = fixture();
  watch.begins();
  now.ms += 1000;
  const first = watch.etaSeconds ?? Number.NaN;
  residual.bytes *= 4;
  now.ms += 100;
  t.ok(Math.abs((watch.etaSeconds ?? Number.NaN) - (first - 0.1)) < 1e-9, "counted down");
  now.ms += 100;
  t.ok((watch.etaSeconds ?? Number.NaN) > first, "and anew");
});

t.test("once it was decided there is no stall any more, and the end is near", async (t) => {
  const { watch, now } = fixture();
  watch.firstPassDone = true;
  for (; now.ms < 12_000; now.ms += 50) watch.decide(watch.observe(true));
  const total = watch.totalStalledMs;
  watch.decided();
  now.ms += 5000;
  t.equal(watch.stalledMs, 0);
  t.ok(Math.abs(watch.totalStalledMs - total) < 51, "it counts no further");
  t.equal(watch.etaSeconds, 0);
});
