/** Tests the model of copying pass after pass. */
import t from "tap";
import { curveOfSamples } from "../../../shared/model/dirty-curve.ts";
import { closeIn, copyDirtied } from "../../../shared/model/passes.ts";

/** A loop over 10 000 pages, all of which are dirtied in a second. */
const loop = curveOfSamples([{ seconds: 1, pages: 10_000 }], 10_000);
const at = (secondsPerPage: number) => ({ secondsPerPage: () => secondsPerPage });
const costs = { ...at(50e-6), bytesPerPage: () => 100, periodSeconds: 0.05, heldPages: 0, stopPages: 1000 };

t.test("over a link twice as fast as the guest, each pass is half as long, until little is left", async (t) => {
  const { converges, bytesSent, seconds, lastSeconds } = copyDirtied(loop, costs, 1);
  t.equal(converges, true);
  // the passes send 10 000, 5 000, 2 500 and 1 250 pages, and 625 are left
  t.equal(bytesSent, 1_875_000);
  t.ok(Math.abs(seconds - 0.9375) < 1e-9);
  t.ok(Math.abs(lastSeconds - 0.0625) < 1e-9);
});

t.test("over a link that is slower than the guest, the passes do not converge", async (t) => {
  t.equal(copyDirtied(loop, { ...costs, ...at(101e-6) }, 1).converges, false);
  t.equal(
    copyDirtied(loop, { ...costs, ...at(101e-6), stopPages: 10_000 }, 1).converges,
    true,
    "the passes converge when all pages fit",
  );
});

t.test("a short copy is followed by passes of a whole period, in which more is dirtied", async (t) => {
  t.equal(copyDirtied(loop, { ...costs, stopPages: 400 }, 0.01).converges, true, "a short copy leaves little");
  t.equal(copyDirtied(loop, { ...costs, stopPages: 50 }, 0.01).converges, false);
});

t.test("held pages are not sent", async (t) => {
  const held = copyDirtied(loop, { ...costs, heldPages: 1000 }, 1);
  t.ok(held.bytesSent < copyDirtied(loop, costs, 1).bytesSent);
  t.ok(held.seconds < copyDirtied(loop, costs, 1).seconds);
});

t.test("closing goes on to the local minimum", async (t) => {
  const closing = closeIn(loop, costs, 0.1, 0.005);
  t.equal(closing.lastSeconds, 0.005);
  t.ok(Math.abs(closing.seconds - 0.05 - 0.025 - 0.0125 - 0.00625) < 1e-9);
  const beyond = closeIn(loop, { ...costs, ...at(200e-6) }, 0.1, 0.005);
  t.equal(beyond.lastSeconds, 0.1, "closing stays where it is when passes do not shrink");
});
