/** Tests what systemd's watchdog hears of an agent. */
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { feedWatchdog, watchdogLimitMs } from "../../../../shared/runtime/agent/watchdog.ts";
import { createLogger } from "../../../../shared/runtime/log/log.ts";
import { FakeClock } from "../../../support/fake-clock.ts";

const log = createLogger("test", "silent");

t.test("the limit is read as sd_watchdog_enabled(3) says", async (t) => {
  const cases: readonly (readonly [NodeJS.ProcessEnv, number | undefined])[] = [
    [{}, undefined],
    [{ WATCHDOG_USEC: "30000000" }, 30_000],
    [{ WATCHDOG_USEC: "30000000", WATCHDOG_PID: "4711" }, 30_000],
    [{ WATCHDOG_USEC: "30000000", WATCHDOG_PID: "4712" }, undefined],
    [{ WATCHDOG_USEC: "30000000", WATCHDOG_PID: "" }, undefined],
    [{ WATCHDOG_PID: "4711" }, undefined],
    [{ WATCHDOG_USEC: "0" }, undefined],
    [{ WATCHDOG_USEC: "-1" }, undefined],
    [{ WATCHDOG_USEC: "1500" }, 1.5],
    [{ WATCHDOG_USEC: "30s" }, undefined],
    [{ WATCHDOG_USEC: "18446744073709551615" }, undefined],
    [{ WATCHDOG_USEC: "" }, undefined],
  ];
  for (const [env, limit] of cases) t.equal(watchdogLimitMs(env, 4711), limit, JSON.stringify(env));
});

t.test("systemd is told at once, and then each time when half of the limit has passed", async (t) => {
  const clock = new FakeClock();
  const toldMs: number[] = [];
  const end = feedWatchdog(30_000, async () => void toldMs.push(clock.monotonicMs()), log, clock);
  t.same(toldMs, [0]);
  await clock.advance(45_000);
  t.same(toldMs, [0, 15_000, 30_000, 45_000]);
  end();
  await clock.advance(3_600_000);
  t.equal(toldMs.length, 4, "after the end systemd is told nothing");
  t.equal(clock.pending, 0);
});

t.test("the time that it takes to tell systemd counts", async (t) => {
  const clock = new FakeClock();
  const toldMs: number[] = [];
  const end = feedWatchdog(
    30_000,
    () => clock.sleep(4000).then(() => void toldMs.push(clock.monotonicMs())),
    log,
    clock,
  );
  await clock.advance(40_000);
  t.same(toldMs, [4000, 19_000, 34_000], "the next word begins 15 s after the beginning of the last one");
  end();
});

t.test("an event loop that hangs tells nothing", async (t) => {
  const clock = new FakeClock();
  let told = 0;
  const end = feedWatchdog(30_000, async () => void told++, log, clock);
  clock.jump(60_000);
  t.equal(told, 1);
  await clock.advance(0);
  t.equal(told, 2, "systemd is told as soon as the loop turns again");
  end();
});

t.test("a word that does not reach systemd is said again each second, and logged once", async (t) => {
  const clock = new FakeClock();
  const lines: string[] = [];
  const log = createLogger("test", "warn", { write: (line) => lines.push(line) });
  const toldMs: number[] = [];
  const tell = async (): Promise<void> => {
    if (toldMs.push(clock.monotonicMs()) < 4) throw new MigrationFault("configuration", "no systemd");
  };
  const end = feedWatchdog(30_000, tell, log, clock);
  await clock.advance(20_000);
  t.same(toldMs, [0, 1000, 2000, 3000, 18_000]);
  t.equal(lines.length, 1);
  end();
});

t.test("with a limit below two seconds, a word is said again after half of the limit", async (t) => {
  const clock = new FakeClock();
  let told = 0;
  const tell = async (): Promise<void> => {
    told++;
    throw new MigrationFault("configuration", "no systemd");
  };
  const end = feedWatchdog(100, tell, log, clock);
  await clock.advance(200);
  t.equal(told, 5);
  end();
});
