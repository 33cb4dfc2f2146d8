/**
 * Tells systemd again and again that the agent's event loop turns (WatchdogSec= in the units). An agent whose event
 * loop hangs tells nothing; systemd kills it and starts it again, and the new agent takes up what the journal knows.
 * Without the watchdog, a guest that is stopped for its switchover would stay stopped for as long as the agent hangs.
 */
import { type Clock, systemClock, type Timer } from "../clock.ts";
import type { Logger } from "../log/log.ts";

/** The value by which systemd means "no limit", microseconds. */
const INFINITE_US = 2n ** 64n - 1n;
const US_PER_MS = 1000;
/**
 * The pause before a message that did not reach systemd is sent again, milliseconds. The usual pause is half of the
 * time within which systemd wants to hear of the agent. A second usual pause would be too long: the whole time would
 * then be over.
 */
const RETRY_MS = 1000;

/**
 * Reads the time within which systemd wants to hear of this process from WATCHDOG_USEC and WATCHDOG_PID, as
 * sd_watchdog_enabled(3) does.
 * @returns milliseconds; undefined when systemd does not wait for this process, or the variable holds no time
 */
export function watchdogLimitMs(env: NodeJS.ProcessEnv, pid: number = process.pid): number | undefined {
  const { WATCHDOG_USEC: limit = "", WATCHDOG_PID: whose } = env;
  if (!/^\d{1,20}$/.test(limit)) return undefined;
  const limitUs = BigInt(limit);
  if (limitUs === 0n || limitUs >= INFINITE_US) return undefined;
  // a child of the process for which the variables are meant inherits them
  if (whose !== undefined && whose !== String(pid)) return undefined;
  return Number(limitUs) / US_PER_MS;
}

/**
 * Calls `tell` from the event loop, at once and then each time when half of the limit has passed, as
 * sd_watchdog_enabled(3) advises.
 * @param limitMs the time within which systemd wants to hear of this process
 * @param tell rejects when systemd did not take note
 * @returns a function that ends the calls
 */
export function feedWatchdog(
  limitMs: number,
  tell: () => Promise<void>,
  log: Pick<Logger, "warn">,
  clock: Clock = systemClock,
): () => void {
  let timer: Timer | undefined;
  let ended = false;
  let wasTold = true;
  const again = (ms: number): void => {
    if (ended) return;
    timer = clock.after(ms, feed);
    timer.unref();
  };
  const feed = (): void => {
    const startedMs = clock.monotonicMs();
    tell().then(
      () => {
        wasTold = true;
        again(Math.max(0, limitMs / 2 - (clock.monotonicMs() - startedMs)));
      },
      (thrown: unknown) => {
        if (wasTold) log.warn({ fault: thrown }, "systemd's watchdog was not told; it is told again every second");
        wasTold = false;
        again(Math.min(RETRY_MS, limitMs / 2));
      },
    );
  };
  feed();
  return () => {
    ended = true;
    clock.cancel(timer);
  };
}
