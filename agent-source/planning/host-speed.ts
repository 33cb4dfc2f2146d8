/**
 * How fast this host is beside the one that the model's costs were measured on: zstd's time for made-up pages, which are the same
 * everywhere. Taken at its best of several short runs, since others on the host only ever make it slower.
 */
import { USUAL_COSTS_ZSTD_BYTES_PER_SECOND } from "../../shared/model/observation.ts";
import { simulatePages } from "../../shared/page/simulated-pages.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { ZstdPool } from "../../shared/runtime/zstd/zstd-pool.ts";
import { PAGE_SIZE } from "../../shared/units.ts";

/** Raw: below a millisecond for each run, and far more than its message to the thread takes. */
export const REFERENCE_BYTES = 512 * 1024;
const LEVEL = 1;
/** As many as need some 20 ms: a host that is busy for a moment is free in one of them. */
const RUNS = 20;
/** Beyond this it is no processor that was measured. */
const MOST = 8;

/**
 * @param memory the pool's
 * @param at where the reference is to lie in it, a multiple of 8
 * @param to where REFERENCE_BYTES may be written
 * @returns times the speed of the host of USUAL_COSTS
 */
export async function measureHostSpeed(
  zstd: ZstdPool,
  memory: Uint8Array,
  at: number,
  to: number,
  clock: Pick<Clock, "monotonicMs">,
): Promise<number> {
  simulatePages(memory, at, REFERENCE_BYTES / PAGE_SIZE);
  let leastMs = Number.POSITIVE_INFINITY;
  for (let run = 0; run < RUNS; run++) {
    const beganMs = clock.monotonicMs();
    await zstd.compress(at, REFERENCE_BYTES, to, REFERENCE_BYTES, LEVEL);
    leastMs = Math.min(leastMs, clock.monotonicMs() - beganMs);
  }
  const bytesPerSecond = (1000 * REFERENCE_BYTES) / leastMs;
  return Math.min(MOST, Math.max(1 / MOST, bytesPerSecond / USUAL_COSTS_ZSTD_BYTES_PER_SECOND));
}
