/** Tests the credit, deep and shallow, and the length of frames in post-copy. */
import t from "tap";
import { deepCredit, shallowCredit, shallowFrameBytes } from "../../../agent-source/send/credit.ts";

const WINDOW = 16 << 20;
const link = (bitsPerSecond: number, knownRoundTripMs: number) => ({
  bytesPerSecond: bitsPerSecond / 8,
  peakBytesPerSecond: bitsPerSecond / 8,
  knownRoundTripMs,
});

t.test("the deep credit is what the agents hold and what the link holds, and never more than agreed on", async (t) => {
  const inHand = 2 << 20;
  t.equal(deepCredit(link(10e9, 0.2), WINDOW), inHand, "a short link adds nothing");
  t.equal(deepCredit(link(1e9, 20), WINDOW), inHand + 4_000_000);
  t.equal(deepCredit(link(40e9, 20), WINDOW), WINDOW);
});

t.test("a credit that follows the rate which it lets through grows until a long link is full", async (t) => {
  const [bytesPerSecond, roundTripMs, hostsMs] = [118e6, 20, 20];
  // the rate that is measured while TCP begins slowly
  let measured = 10e6;
  for (let window = 0; window < 20; window++) {
    const seen = { bytesPerSecond: measured, peakBytesPerSecond: measured, knownRoundTripMs: roundTripMs };
    measured = Math.min(bytesPerSecond, (1000 * deepCredit(seen, WINDOW)) / (roundTripMs + hostsMs));
  }
  t.equal(measured, bytesPerSecond);
});

t.test("the shallow credit of post-copy takes the link some milliseconds beside the round trip", async (t) => {
  for (const bits of [100e6, 1e9, 10e9]) {
    const one = link(bits, 0.5);
    const msOf = (hostsAreSlow: boolean): number =>
      (1000 * shallowCredit(one, WINDOW, shallowFrameBytes(one, 1 << 20), hostsAreSlow)) / one.bytesPerSecond;
    const ms = msOf(false);
    t.ok(ms < 7, `${ms.toFixed(1)} ms at ${bits / 1e6} Mbit/s`);
    t.ok(msOf(true) > ms + 3 && msOf(true) < 11, "a little more is on its way where the hosts wait for processors");
  }
  const busy = { ...link(1e9, 0.5), bytesPerSecond: 40e6 };
  t.equal(shallowCredit(busy, WINDOW, 65_536), shallowCredit(link(1e9, 0.5), WINDOW, 65_536));
  t.equal(
    shallowFrameBytes(busy, 1 << 20),
    shallowFrameBytes(link(1e9, 0.5), 1 << 20),
    "hosts that are behind make no frame smaller",
  );
  t.ok(
    shallowCredit({ ...busy, bytesPerSecond: 1e6 }, WINDOW, 65_536) < 90_000,
    "the credit shrinks on a link that became slow",
  );
  t.equal(shallowFrameBytes(link(10e6, 1), 1 << 20), 16 << 10, "a frame has some pages at least");
  t.equal(shallowFrameBytes(link(10e9, 1), 32 << 10), 32 << 10, "a frame is never larger than agreed on");
});
