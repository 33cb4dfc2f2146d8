/** Tests `ServiceTimes`: how long the guest waits for its pages. */
import fc from "fast-check";
import t from "tap";
import { ServiceTimes } from "../../../agent-destination/replay/service-times.ts";

t.test("a time runs from the request to the page, and percentiles are right to a tenth", async (t) => {
  const times = new ServiceTimes();
  for (let page = 0; page < 100; page++) {
    times.requested(page, 1000);
    times.served(page, 1000 + 1000 * (page + 1));
  }
  const { requests, medianMs, p99Ms, maxMs } = times.summary();
  t.equal(requests, 100);
  t.ok(Math.abs(medianMs - 50) < 5, `${medianMs}`);
  t.ok(Math.abs(p99Ms - 99) < 10, `${p99Ms}`);
  t.equal(maxMs, 100);
});

t.test("a page that is requested again counts from its first request, and a page without one not at all", async (t) => {
  const times = new ServiceTimes();
  times.requested(7, 0);
  times.requested(7, 900);
  t.ok(times.isWaiting);
  t.same([...times.waitingPages], [7]);
  times.served(8, 1000);
  times.served(7, 1000);
  t.match(times.summary(), { requests: 1, maxMs: 1 });
  t.notOk(times.isWaiting);
});

t.test("without a request there are no times", async (t) => {
  t.same(new ServiceTimes().summary(), { requests: 0, medianMs: 0, p99Ms: 0, maxMs: 0 });
});

t.test("median and 99th percentile are right to 9 %, and never beyond the longest", async () => {
  const waits = fc.array(fc.integer({ min: 10, max: 10_000_000 }), { minLength: 1, maxLength: 300 });
  fc.assert(
    fc.property(waits, (given) => {
      const times = new ServiceTimes();
      for (const [page, us] of given.entries()) {
        times.requested(page, 1e15);
        times.served(page, 1e15 + us);
      }
      const sorted = given.toSorted((a, b) => a - b);
      const { requests, medianMs, p99Ms, maxMs } = times.summary();
      const right = (ms: number, part: number): boolean => {
        const exactMs = sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)]! / 1000;
        return Math.abs(ms - exactMs) <= 0.095 * exactMs;
      };
      return (
        requests === given.length &&
        maxMs === sorted.at(-1)! / 1000 &&
        right(medianMs, 0.5) &&
        right(p99Ms, 0.99) &&
        medianMs <= p99Ms &&
        p99Ms <= maxMs
      );
    }),
  );
});

t.test("a clock that was set back, and a wait of hours, are counted all the same", async (t) => {
  const times = new ServiceTimes();
  times.requested(1, 5000);
  times.served(1, 4000);
  times.requested(2, 0);
  times.served(2, 2 ** 40);
  t.match(times.summary(), { requests: 2, maxMs: 2 ** 40 / 1000 });
});

t.test("a QEMU that asks for everything does not make the times grow without bound", async (t) => {
  const times = new ServiceTimes();
  for (let page = 0; page < 100_000; page++) times.requested(page, page);
  t.equal([...times.waitingPages].length, 65_536);
});
