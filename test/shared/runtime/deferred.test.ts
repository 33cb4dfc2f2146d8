/** Tests waits with a bound, and what they leave behind. */
import t from "tap";
import { MigrationFault } from "../../../shared/fault.ts";
import { deferred, endingAfter, onceAborted, orAborted, orLate, within } from "../../../shared/runtime/deferred.ts";
import { FakeClock } from "../../support/fake-clock.ts";

const DAY_MS = 86_400_000;
const late = (): MigrationFault => new MigrationFault("timeout", "too late");

t.test("within() settles as the promise does, and leaves no timer", async (t) => {
  const clock = new FakeClock();
  const [good, bad] = [deferred<string>(), deferred<string>()];
  const [first, second] = [within(good.promise, DAY_MS, late, clock), within(bad.promise, DAY_MS, late, clock)];
  t.equal(clock.pending, 2);
  good.resolve("here");
  bad.reject(new MigrationFault("peer-lost", "gone"));
  t.equal(await first, "here");
  await t.rejects(second, { code: "peer-lost" });
  await clock.advance(0);
  t.equal(clock.pending, 0);
});

t.test("within() rejects with the fault that is made when the time is over, and not before", async (t) => {
  const clock = new FakeClock();
  const told: string[] = [];
  const make = (): MigrationFault => {
    told.push("made");
    return late();
  };
  const never = deferred<void>();
  const waits = t.rejects(within(never.promise, DAY_MS, make, clock), { code: "timeout" });
  await clock.advance(DAY_MS - 1);
  t.same(told, []);
  await clock.advance(1);
  await waits;
  t.same(told, ["made"]);
  never.reject(new MigrationFault("peer-lost", "gone"));
});

t.test("orLate() is true once a promise has resolved or rejected, and false when that takes too long", async (t) => {
  const clock = new FakeClock();
  const [good, bad, never] = [deferred<void>(), deferred<void>(), deferred<void>()];
  const all = [good, bad, never].map(({ promise }) => orLate(promise, DAY_MS, clock));
  good.resolve();
  bad.reject(late());
  t.same(await Promise.all(all.slice(0, 2)), [true, true]);
  t.equal(clock.pending, 1);
  await clock.advance(DAY_MS);
  t.equal(await all[2], false);
});

t.test("orLate() of a time that is over already takes no time", async (t) => {
  const clock = new FakeClock();
  const waits = orLate(deferred<void>().promise, -DAY_MS, clock);
  await clock.advance(0);
  t.equal(await waits, false);
});

t.test("orAborted() rejects with the reason of the signal, also where the signal was aborted before", async (t) => {
  const abort = new AbortController();
  const waits = orAborted(deferred<void>().promise, abort.signal);
  const done = orAborted(Promise.resolve("done"), abort.signal);
  t.equal(await done, "done");
  abort.abort(new MigrationFault("cancelled", "enough"));
  await t.rejects(waits, { code: "cancelled", message: "enough" });
  const other = deferred<void>();
  await t.rejects(orAborted(other.promise, abort.signal), { code: "cancelled" });
  other.reject(late());
});

t.test("onceAborted() waits for a signal only until another one is aborted", async (t) => {
  const [first, second] = [new AbortController(), new AbortController()];
  let calls = 0;
  const waits = onceAborted(first.signal, second.signal);
  void onceAborted(first.signal, AbortSignal.abort()).then(() => calls++);
  first.abort();
  await waits;
  await onceAborted(first.signal, second.signal);
  t.equal(calls, 0);
});

t.test("an action's signal ends with its time, with the outer signal, and never after the action", async (t) => {
  const clock = new FakeClock();
  const outer = new AbortController();
  const waits = (signal: AbortSignal): Promise<never> => orAborted(new Promise<never>(() => undefined), signal);
  const slow = t.rejects(endingAfter(1000, outer.signal, clock, waits, late), { code: "timeout", message: "too late" });
  const withoutReason = endingAfter(1000, outer.signal, clock, async (signal) => {
    await waits(signal).catch(() => undefined);
    return signal.reason;
  });
  await clock.advance(999);
  t.equal(clock.pending, 2);
  await clock.advance(1);
  await slow;
  t.match(await withoutReason, { name: "AbortError" });
  t.equal(await endingAfter(1000, outer.signal, clock, async () => "done"), "done");
  t.equal(clock.pending, 0, "the time of an action that is over is not waited for");
  const ended = t.rejects(endingAfter(1000, outer.signal, clock, waits), { code: "stopping" });
  outer.abort(new MigrationFault("stopping", "the agent stops"));
  await ended;
  t.equal(clock.pending, 0);
});
