/**
 * Logs for how long an agent's event loop was blocked, for measurements: once a second, at the level debug, the longest
 * time and the 99th percentile of that second.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { systemClock } from "../clock.ts";
import type { Logger } from "../log/log.ts";

/** How often Node looks at the event loop, milliseconds. The delays that Node measures include this time. */
const RESOLUTION_MS = 5;
/** How often a line is logged, milliseconds. */
const EVERY_MS = 1000;
const NS_PER_MS = 1e6;

/**
 * Begins to measure. This costs 200 turns of the event loop a second, so it is only for agents that log at the level
 * debug.
 */
export function watchLoop(log: Logger): void {
  const seen = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  seen.enable();
  const tell = (): void => {
    const stallMs = (ns: number): number => Math.max(0, ns / NS_PER_MS - RESOLUTION_MS);
    log.debug({ stallMs: stallMs(seen.max), p99Ms: stallMs(seen.percentile(99)) }, "event loop");
    seen.reset();
  };
  systemClock.every(EVERY_MS, tell).unref();
}
