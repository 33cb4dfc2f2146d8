/**
 * How long the event loop of an agent stands still at most, as a line a second at the level debug. For measurements.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { Logger } from "../log/log.ts";

/** How often the loop is looked at, milliseconds; what Node measures includes it. */
const RESOLUTION_MS = 5;
const EVERY_MS = 1000;
const NS_PER_MS = 1e6;

/** Costs two hundred turns of the loop a second: called where debug lines are asked for. */
export function watchLoop(log: Logger): void {
  const seen = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  seen.enable();
  setInterval(() => {
    const stallMs = (ns: number): number => Math.max(0, ns / NS_PER_MS - RESOLUTION_MS);
    log.debug({ stallMs: stallMs(seen.max), p99Ms: stallMs(seen.percentile(99)) }, "event loop");
    seen.reset();
  }, EVERY_MS).unref();
}
