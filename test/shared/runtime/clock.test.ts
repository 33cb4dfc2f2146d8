/** Tests the clock of the system. */
import fc from "fast-check";
import t from "tap";
import { SystemClock, systemClock } from "../../../shared/runtime/clock.ts";

/** Makes a clock of a true time in microseconds. Its wall clock has milliseconds, its monotonic clock runs wrong. */
function rig(startUs: number, error = 1) {
  const time = { us: startUs, elapsed: 0 };
  const clock = new SystemClock(
    () => Math.floor(time.us / 1000),
    () => (time.elapsed * error) / 1000,
  );
  const pass = (us: number): void => {
    time.us += us;
    time.elapsed += us;
  };
  return { time, clock, pass };
}

t.test("nowUs follows the wall clock within a millisecond and never runs backwards", async () => {
  fc.assert(
    fc.property(fc.array(fc.nat(5_000_000), { maxLength: 50 }), fc.constantFrom(0.9995, 1, 1.0005), (steps, error) => {
      const { time, clock, pass } = rig(1_700_000_000_000_123, error);
      let last = clock.nowUs();
      for (const us of steps) {
        pass(us);
        const now = clock.nowUs();
        if (now < last || Math.abs(now - time.us) > 1000) return false;
        last = now;
      }
      return true;
    }),
  );
});

t.test("nowUs counts microseconds between the ticks of the wall clock", async (t) => {
  const { clock, pass } = rig(1_700_000_000_000_000);
  const first = clock.nowUs();
  pass(250);
  t.equal(clock.nowUs() - first, 250);
});

t.test("nowUs follows a host clock that is set, forwards and back", async (t) => {
  const { time, clock, pass } = rig(1_700_000_000_000_000);
  clock.nowUs();
  time.us += 3_600_000_000;
  t.ok(Math.abs(clock.nowUs() - time.us) <= 1000);
  time.us -= 3_600_000_000;
  t.ok(Math.abs(clock.nowUs() - time.us) <= 1000);
  pass(10);
  t.ok(Math.abs(clock.nowUs() - time.us) <= 1000);
});

t.test("the system's clock agrees with Date.now", async (t) => {
  const before = Date.now();
  const now = systemClock.nowUs() / 1000;
  t.ok(now >= before - 1 && now < Date.now() + 2);
  const start = systemClock.monotonicMs();
  t.ok(systemClock.monotonicMs() >= start);
});
