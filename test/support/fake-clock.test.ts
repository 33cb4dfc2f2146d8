import t from "tap";
import { FAKE_START_US, FakeClock } from "./fake-clock.ts";

t.test("calls come in the order of their times, each at its own time", async (t) => {
  const clock = new FakeClock();
  const calls: (readonly [string, number])[] = [];
  const note = (name: string) => () => calls.push([name, clock.monotonicMs()]);
  clock.after(30, note("late"));
  clock.after(10, note("early"));
  clock.cancel(clock.after(15, note("cancelled")));
  const ticker = clock.every(20, note("tick"));
  await clock.advance(45);
  t.same(calls, [
    ["early", 10],
    ["tick", 20],
    ["late", 30],
    ["tick", 40],
  ]);
  t.equal(clock.monotonicMs(), 45);
  t.equal(clock.nowUs(), FAKE_START_US + 45_000);
  clock.cancel(ticker);
  t.equal(clock.pending, 0);
});

t.test("a loop that sleeps goes round as often as the time allows", async (t) => {
  const clock = new FakeClock();
  let rounds = 0;
  const loop = (async () => {
    while (clock.monotonicMs() < 100) {
      rounds++;
      await clock.sleep(10);
    }
  })();
  await clock.advance(100);
  await loop;
  t.equal(rounds, 10);
});

t.test("a sleep ends at once when its signal is aborted", async (t) => {
  const clock = new FakeClock();
  const stop = new AbortController();
  const asleep = clock.sleep(1000, stop.signal);
  stop.abort();
  await t.rejects(asleep, { name: "AbortError" });
  await t.rejects(clock.sleep(1000, stop.signal), { name: "AbortError" });
  t.equal(clock.pending, 0);
});

t.test("a test can wait until something waits for the clock", async (t) => {
  const clock = new FakeClock();
  const waited = clock.untilWaitedFor();
  clock.after(5, () => undefined);
  await waited;
  t.equal(clock.pending, 1);
});
