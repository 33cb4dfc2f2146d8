/** Tests what systemd's watchdog hears of an agent. */
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { feedWatchdog, watchdogLimitMs } from "../../../../shared/runtime/agent/watchdog.ts";
import { createLogger } from "../../../../shared/runtime/log/log.ts";
import { bounded } from "../../../support/bounded.ts";

const WITHIN_MS = 10_000;

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

t.test("systemd is told at once, and then after each half of the limit", async (t) => {
  const limitMs = 40;
  const told: number[] = [];
  let third: () => void = () => undefined;
  const enough = new Promise<void>((resolve) => {
    third = resolve;
  });
  const tell = async (): Promise<void> => {
    if (told.push(performance.now()) === 3) third();
  };
  const end = feedWatchdog(limitMs, tell, createLogger("test", "silent"));
  t.equal(told.length, 1, "systemd is told at once");
  // the watchdog's timers keep no program alive
  await bounded(enough, WITHIN_MS, "the third word");
  end();
  const gaps = told.slice(1).map((at, index) => at - (told[index] ?? 0));
  for (const gap of gaps) t.ok(gap > limitMs / 2 - 5, `${gap} ms`);
});

t.test("an event loop that hangs tells nothing", async (t) => {
  let told = 0;
  const end = feedWatchdog(10, async () => void told++, createLogger("test", "silent"));
  const until = performance.now() + 60;
  while (performance.now() < until);
  t.equal(told, 1);
  end();
});

t.test("a word that does not reach systemd is said again, and logged once", async (t) => {
  const lines: string[] = [];
  const log = createLogger("test", "warn", { write: (line) => lines.push(line) });
  let told = 0;
  let fifth: () => void = () => undefined;
  const enough = new Promise<void>((resolve) => {
    fifth = resolve;
  });
  const tell = (): Promise<void> => {
    told++;
    if (told === 5) fifth();
    return told < 4 ? Promise.reject(new MigrationFault("configuration", "no systemd")) : Promise.resolve();
  };
  const end = feedWatchdog(10, tell, log);
  await bounded(enough, WITHIN_MS, "the fifth word");
  end();
  t.equal(lines.length, 1);
});
