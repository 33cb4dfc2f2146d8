/** Tests `CopyObserver`: what it shows the switch policy, and what it reports of a copy. */
import t from "tap";
import { CopyObserver } from "../../../agent-source/switchover/copy-observer.ts";
import { EtaEstimator } from "../../../agent-source/switchover/eta.ts";
import { SwitchPolicy } from "../../../agent-source/switchover/switch-policy.ts";

interface Fixture {
  readonly observer: CopyObserver;
  /** The time of the fake clock, milliseconds. */
  readonly now: { ms: number };
  readonly residual: { bytes: number };
  readonly link: { down: boolean; still: boolean; frames: number };
  readonly stalls: boolean[];
  readonly outlooks: string[];
}

/** Makes an observer of a copy that consists of nothing but the figures it is asked for. */
function fixture(): Fixture {
  const now = { ms: 1000 };
  const residual = { bytes: 100e6 };
  const link = { down: false, still: false, frames: 0 };
  const stalls: boolean[] = [];
  const outlooks: string[] = [];
  const scheduler = {
    residualPages: () => residual.bytes / 4096,
    residualBytes: () => residual.bytes,
    bytesPerDirtyPage: () => 4096,
    holdPages: 0,
    hasWork: true,
    get workBytes(): number {
      return residual.bytes / 2;
    },
    resendCostIsMeasured: true,
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
    onOutlook: (outlook: string) => outlooks.push(outlook),
    onStall: (stalled: boolean) => stalls.push(stalled),
  };
  return { observer: new CopyObserver(parts), now, residual, link, stalls, outlooks };
}

t.test("a stall is reported once when it begins and once when it ends", async (t) => {
  const { observer, now, residual, stalls } = fixture();
  observer.firstPassDone = true;
  const go = (untilMs: number): void => {
    for (; now.ms < untilMs; now.ms += 50) observer.decide(observer.observe(true));
  };
  go(12_000);
  t.same(stalls, [true]);
  t.ok(observer.stalledMs > 5000);
  residual.bytes = 70e6;
  go(15_000);
  t.same(stalls, [true, false]);
  t.equal(observer.stalledMs, 0);
  t.ok(observer.totalStalledMs > 5000, "the time of the stall stays for the result");
});

t.test("an observation has encoded bytes, and tells whether the link is down", async (t) => {
  const { observer, link } = fixture();
  t.match(observer.observe(false), { residualBytes: 50e6, bytesPerPage: 2048, linkIsDown: false, drained: false });
  link.down = true;
  t.match(observer.observe(true), { linkIsDown: true, drained: true });
});

t.test("the backlog is the time that the link and the agents need for what is not held", async (t) => {
  const { observer, residual, link } = fixture();
  residual.bytes = 4096e4;
  // the work is half of 10 000 pages, compressed two to one, at 100 MB/s; and each of the 10 000 takes 4 us
  t.equal(Math.round(observer.backlogMs), Math.round(20.48e6 / 2 / 100e3 + (10_000 * 4) / 1000));
  const seen = observer.observe(true);
  t.equal(observer.holdPages(seen), 3000, "never more than a part of the arena is held");
  link.still = true;
  t.equal(observer.holdPages(observer.observe(true)), 0, "a guest that stands still makes no later version");
});

t.test("the cost of pages that are sent again is known once frames of them were compressed", async (t) => {
  const { observer, link } = fixture();
  t.ok(observer.observe(true).resendCostIsMeasured, "without compression the cost is the size of the pages");
  link.frames = 100;
  observer.observe(true);
  observer.firstPassDone = true;
  link.frames = 111;
  t.notOk(observer.observe(true).resendCostIsMeasured);
  link.frames = 112;
  t.ok(observer.observe(true).resendCostIsMeasured);
});

t.test("no downtime is estimated for a guest that stands still", async (t) => {
  const { observer, link } = fixture();
  observer.firstPassDone = true;
  t.same(observer.decide(observer.observe(true)).kind, "continue");
  t.ok(observer.estimatedDowntimeMs > 0);
  link.still = true;
  t.same(observer.decide(observer.observe(true)).kind, "continue", "nothing is decided");
  t.equal(observer.estimatedDowntimeMs, 0);
});

t.test("the end is estimated some times a second, and counted down in between", async (t) => {
  const { observer, now, residual } = fixture();
  observer.begins();
  now.ms += 1000;
  const first = observer.etaSeconds ?? Number.NaN;
  residual.bytes *= 4;
  now.ms += 100;
  t.ok(Math.abs((observer.etaSeconds ?? Number.NaN) - (first - 0.1)) < 1e-9, "the estimate is counted down");
  now.ms += 100;
  t.ok((observer.etaSeconds ?? Number.NaN) > first, "the end is estimated again");
});

t.test("once the switch was decided there is no stall any more, and the end is near", async (t) => {
  const { observer, now } = fixture();
  observer.firstPassDone = true;
  for (; now.ms < 12_000; now.ms += 50) observer.decide(observer.observe(true));
  const total = observer.totalStalledMs;
  observer.decided();
  now.ms += 5000;
  t.equal(observer.stalledMs, 0);
  t.ok(Math.abs(observer.totalStalledMs - total) < 51, "the total counts no further");
  t.equal(observer.etaSeconds, 0);
});
