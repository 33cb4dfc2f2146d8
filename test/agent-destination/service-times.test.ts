import t from "tap";
import { ServiceTimes } from "../../agent-destination/service-times.ts";

t.test("from the request to the page, with percentiles that are right to a tenth", async (t) => {
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

t.test("a page that is asked for again counts from the first time; one that nobody asked for not at all", async (t) => {
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
