import fc from "fast-check";
import t from "tap";
import { MigrationFault } from "../../../shared/fault.ts";
import { CreditWindow } from "../../../shared/link/credit-window.ts";

const never = new AbortController().signal;

t.test("credit is taken until the window is full, and comes back with acknowledgements", async (t) => {
  const window = new CreditWindow(100);
  t.equal(window.take(60), true);
  t.equal(window.take(41), false, "and nothing was taken");
  t.equal(window.available, 40);
  t.equal(window.take(40), true);
  t.equal(window.available, 0);
  window.release(60);
  t.equal(window.inFlight, 40);
});

t.test("a message larger than the window goes alone", async (t) => {
  const window = new CreditWindow(100);
  t.equal(window.take(500), true);
  t.equal(window.take(1), false);
  t.equal(window.available, 0);
  window.release(500);
  t.equal(window.take(1), true);
  t.equal(window.take(500), false);
});

t.test("who waits is served in order, and nobody overtakes", async (t) => {
  const window = new CreditWindow(100);
  window.take(100);
  const served: number[] = [];
  const waits = [80, 10, 30].map((bytes) => window.waitFor(bytes, never).then(() => served.push(bytes)));
  window.release(50);
  t.equal(window.take(1), false, "though 50 bytes are free");
  await Promise.resolve();
  t.same(served, []);
  window.release(50);
  await Promise.all(waits.slice(0, 2));
  t.same(served, [80, 10]);
  window.release(80);
  await Promise.all(waits);
  t.equal(window.inFlight, 40);
});

t.test("who gives up waiting takes nothing and lets the next one pass", async (t) => {
  const window = new CreditWindow(100);
  window.take(90);
  const abort = new AbortController();
  const large = window.waitFor(100, abort.signal);
  const small = window.waitFor(10, never);
  abort.abort(new MigrationFault("cancelled", "The migration was cancelled"));
  await t.rejects(large, { code: "cancelled" });
  await small;
  t.equal(window.inFlight, 100);
  await t.rejects(window.waitFor(1, abort.signal), { code: "cancelled" });
});

t.test("a larger window lets waiters pass, a smaller one holds back until it is kept", async (t) => {
  const window = new CreditWindow(100);
  window.take(100);
  const wait = window.waitFor(50, never);
  window.resize(150);
  await wait;
  window.resize(20);
  t.equal(window.available, 0);
  window.release(130);
  t.equal(window.take(1), false);
  window.release(1);
  t.equal(window.take(1), true);
});

t.test("an acknowledgement of what was not sent is the peer's fault; what is no count of bytes is ours", async (t) => {
  const window = new CreditWindow(100);
  window.take(10);
  t.throws(() => window.release(11), { code: "peer-invalid" });
  t.equal(window.inFlight, 10);
  for (const bytes of [-1, 0.5, Number.NaN]) {
    t.throws(() => window.take(bytes), RangeError);
    t.throws(() => window.release(bytes), RangeError);
  }
  t.throws(() => new CreditWindow(0), RangeError);
  t.throws(() => window.resize(0), RangeError);
});

t.test("whatever is done, no more is in flight than may be, and all who wait are served in the end", async () => {
  const steps = fc.array(
    fc.record({ act: fc.constantFrom("take", "wait", "release", "resize"), bytes: fc.integer({ min: 1, max: 150 }) }),
    { maxLength: 60 },
  );
  await fc.assert(
    fc.asyncProperty(steps, async (steps) => {
      const window = new CreditWindow(100);
      const waits: Promise<void>[] = [];
      let widest = 100;
      for (const { act, bytes } of steps) {
        if (act === "take") window.take(bytes);
        else if (act === "wait") waits.push(window.waitFor(bytes, never));
        else if (act === "release") window.release(Math.min(bytes, window.inFlight));
        else window.resize(bytes);
        if (act === "resize") widest = Math.max(widest, bytes);
        // one that is larger than the window goes alone
        if (window.inFlight > Math.max(widest, 150) || window.inFlight < 0) return false;
      }
      const all = Promise.all(waits);
      for (let turn = 0; turn <= waits.length; turn++) {
        window.release(window.inFlight);
        await Promise.resolve();
      }
      await all;
      return true;
    }),
  );
});
