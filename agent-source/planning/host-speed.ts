/**
 * Measures how fast this host is, compared with the host on which the costs of the model were measured: by zstd's time
 * for simulated pages, which are the same on every host (docs/design/planning.md#how-fast-the-host-is). The best of
 * several short runs counts, since other programs on the host only ever make a run slower.
 */
import { USUAL_COSTS_ZSTD_BYTES_PER_SECOND } from "../../shared/model/observation.ts";
import { simulatePages } from "../../shared/page/simulated-pages.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { ZstdPool } from "../../shared/runtime/zstd/zstd-pool.ts";
import { PAGE_SIZE } from "../../shared/units.ts";

/**
 * How many raw bytes a run compresses. The compression takes less than a millisecond, but far longer than the run's
 * message to the thread takes.
 */
export const REFERENCE_BYTES = 512 * 1024;
const LEVEL = 1;
/** How many runs are made. They take some 20 ms together: a host that is busy for a moment is free in one of them. */
const RUNS = 20;
/** The largest speed that is returned; the smallest is its inverse. No processor's speed lies outside these bounds. */
const MOST = 8;

/**
 * Measures the speed of this host: writes simulated pages into the memory, and compresses them RUNS times.
 * @param memory the memory of the pool
 * @param at where the REFERENCE_BYTES of simulated pages are written in the memory, a multiple of 8
 * @param to where zstd may write REFERENCE_BYTES of compressed data in the memory
 * @returns how many times as fast this host is as the host on which USUAL_COSTS was measured, from 1 / MOST to MOST
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
