import t from "tap";
import { deepCredit, shallowCredit, shallowFrameBytes } from "../../../agent-source/send/credit.ts";

const WINDOW = 16 << 20;
const link = (bitsPerSecond: number, knownRoundTripMs: number) => ({
  bytesPerSecond: bitsPerSecond / 8,
  peakBytesPerSecond: bitsPerSecond / 8,
  knownRoundTripMs,
});

t.test(
  "while the guest runs here, what is in the agents' hands and what the link holds, never more than agreed",
  async (t) => {
    const inHand = 2 << 20;
    t.equal(deepCredit(link(10e9, 0.2), WINDOW), inHand, "over a short way nothing else");
    t.equal(deepCredit(link(1e9, 20), WINDOW), inHand + 4_000_000);
    t.equal(deepCredit(link(40e9, 20), WINDOW), WINDOW);
  },
);

t.test("on a long link a credit that is made of what it lets through grows until the link is full", async (t) => {
  const [bytesPerSecond, roundTripMs, hostsMs] = [118e6, 20, 20];
  // as TCP's beginning is measured
  let measured = 10e6;
  for (let window = 0; window < 20; window++) {
    const seen = { bytesPerSecond: measured, peakBytesPerSecond: measured, knownRoundTripMs: roundTripMs };
    measured = Math.min(bytesPerSecond, (1000 * deepCredit(seen, WINDOW)) / (roundTripMs + hostsMs));
  }
  t.equal(measured, bytesPerSecond);
});

t.test("in post-copy what is on its way takes the link some milliseconds beside the round trip", async (t) => {
  for (const bits of [100e6, 1e9, 10e9]) {
    const one = link(bits, 0.5);
    const msOf = (hostsAreNarrow: boolean): number =>
      (1000 * shallowCredit(one, WINDOW, shallowFrameBytes(one, 1 << 20), hostsAreNarrow)) / one.bytesPerSecond;
    const ms = msOf(false);
    t.ok(ms < 7, `${ms.toFixed(1)} ms at ${bits / 1e6} Mbit/s`);
    t.ok(msOf(true) > ms + 3 && msOf(true) < 11, "and a little more where they wait for processors");
  }
  const busy = { ...link(1e9, 0.5), bytesPerSecond: 40e6 };
  t.equal(shallowCredit(busy, WINDOW, 65_536), shallowCredit(link(1e9, 0.5), WINDOW, 65_536));
  t.equal(shallowFrameBytes(busy, 1 << 20), shallowFrameBytes(link(1e9, 0.5), 1 << 20), "hosts that are behind");
  t.ok(shallowCredit({ ...busy, bytesPerSecond: 1e6 }, WINDOW, 65_536) < 90_000, "the link became slow");
  t.equal(shallowFrameBytes(link(10e6, 1), 1 << 20), 16 << 10, "a frame is some pages at least");
  t.equal(shallowFrameBytes(link(10e9, 1), 32 << 10), 32 << 10, "and never more than was agreed on");
});
