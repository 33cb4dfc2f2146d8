/** Tests `LinkMeter`: the bandwidth, the round trip, the offset of the clocks, and whether the link is at its peak. */
import t from "tap";
import { LinkMeter } from "../../../agent-source/link/link-meter.ts";

t.test("the bandwidth follows what a full link carries", async (t) => {
  const meter = new LinkMeter();
  meter.probed(100e6);
  let bytes = 0;
  for (let ms = 0; ms <= 2000; ms += 20) {
    bytes += 20 * 50e3;
    meter.acknowledged(bytes, ms, true);
  }
  t.ok(Math.abs(meter.bytesPerSecond - 50e6) < 1e6, `${meter.bytesPerSecond}`);
});

t.test("a link that was not full is not taken for a slow link", async (t) => {
  const meter = new LinkMeter();
  meter.probed(100e6);
  let bytes = 0;
  for (let ms = 0; ms <= 2000; ms += 20) {
    bytes += 20 * 5e3;
    meter.acknowledged(bytes, ms, false);
  }
  t.equal(meter.bytesPerSecond, 100e6);
});

t.test("a rate above the measured bandwidth is believed at once", async (t) => {
  const meter = new LinkMeter();
  meter.probed(10e6);
  meter.acknowledged(0, 0, false);
  meter.acknowledged(8e6, 100, false);
  t.equal(meter.bytesPerSecond, 80e6);
});

t.test("the offset of the clocks is taken from the shortest round trip", async (t) => {
  const meter = new LinkMeter();
  // the destination's clock is 5 s ahead; the way there takes 1 ms, the ways back take 9, 1 and 2 ms
  for (const [sent, back] of [
    [0, 9000],
    [100_000, 1000],
    [200_000, 2000],
  ] as const)
    meter.clock(sent, sent + 1000 + back, sent + 1000 + 5e6);
  t.equal(meter.roundTripMs, 2);
  t.equal(meter.clockOffsetUs, 5e6);
  t.equal(meter.toLocal(5e6 + 777), 777);
  t.equal(meter.clockErrorMs, 1);
});

t.test("a probe without a usable result changes nothing", async (t) => {
  const meter = new LinkMeter();
  const before = meter.bytesPerSecond;
  meter.probed(Number.POSITIVE_INFINITY);
  meter.probed(0);
  t.equal(meter.bytesPerSecond, before);
});

/** Lets the link carry `bytesPerMs` for `ms`, from `fromMs` on. @returns the bytes carried so far */
function carry(meter: LinkMeter, bytesPerMs: number, fromMs: number, ms: number, bytesBefore = 0): number {
  let bytes = bytesBefore;
  for (let at = fromMs; at < fromMs + ms; at += 20) {
    bytes += 20 * bytesPerMs;
    meter.acknowledged(bytes, at, true);
  }
  return bytes;
}

t.test("a link that carries about what it can is told from a link whose hosts are behind", async (t) => {
  const narrow = new LinkMeter();
  narrow.probed(12e6);
  carry(narrow, 11.5e3, 0, 1000);
  t.ok(narrow.isAtItsPeak);
  const behind = new LinkMeter();
  behind.probed(118e6);
  const bytes = carry(behind, 60e3, 0, 1000);
  t.notOk(behind.isAtItsPeak);
  carry(behind, 60e3, 1000, 2000, bytes);
  t.notOk(behind.isAtItsPeak, "the link is not taken for full either when its hosts have been behind for seconds");
});

t.test("the burst that a shaped link lets through does not make the link look wide", async (t) => {
  const meter = new LinkMeter();
  meter.probed(12e6);
  const burst = carry(meter, 36e3, 0, 80);
  carry(meter, 11.9e3, 80, 1000, burst);
  t.ok(meter.isAtItsPeak);
});

t.test("a link that became slower counts as being at its peak again after a while", async (t) => {
  const meter = new LinkMeter();
  meter.probed(118e6);
  carry(meter, 11.9e3, 0, 90_000);
  t.ok(meter.isAtItsPeak);
});

t.test("a probe that found too little is forgotten as soon as the link has kept up more", async (t) => {
  const meter = new LinkMeter();
  // the probe found too little, because a host was behind at that moment
  meter.probed(50e6);
  const bytes = carry(meter, 118e3, 0, 240);
  carry(meter, 70e3, 240, 1500, bytes);
  t.notOk(meter.isAtItsPeak);
});

t.test("a probe that found too much is forgotten in seconds, or at once if its second half was slower", async (t) => {
  const meter = new LinkMeter();
  // the probe measured the burst that a shaped link lets through
  meter.probed(70e6);
  const bytes = carry(meter, 50e3, 0, 1000);
  t.notOk(meter.isAtItsPeak);
  carry(meter, 50e3, 1000, 3000, bytes);
  t.ok(meter.isAtItsPeak);
  const told = new LinkMeter();
  told.probed(70e6, 51e6);
  carry(told, 50e3, 0, 1000);
  t.ok(told.isAtItsPeak);
  t.ok(told.bytesPerSecond < 70e6, "the link is not taken for faster than what it carried");
});

t.test("the first bytes over a link do not show yet whether it is at its peak", async (t) => {
  const meter = new LinkMeter();
  meter.probed(12e6);
  carry(meter, 11.9e3, 0, 120);
  t.notOk(meter.isAtItsPeak);
});
