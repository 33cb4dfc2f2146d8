/**
 * How fast this host is beside the one that the model's costs were measured on: zstd's time for data that is always the same. Taken
 * at its best of several short runs, since others on the host only ever make it slower.
 */
import { USUAL_COSTS_ZSTD_BYTES_PER_SECOND } from "../shared/model/observation.ts";
import type { Clock } from "../shared/runtime/clock.ts";
import type { ZstdPool } from "../shared/runtime/zstd-pool.ts";

/** Raw: below a millisecond for each run, and far more than its message to the thread takes. */
export const REFERENCE_BYTES = 256 * 1024;
const LEVEL = 1;
/** As many as need some 20 ms: a host that is busy for a moment is free in one of them. */
const RUNS = 20;
/** Beyond this it is no processor that was measured. */
const MOST = 8;

/** Of 1103515245 and 12345, the constants of ANSI C's example of rand(). */
const next = (random: number): number => (Math.imul(random, 1103515245) + 12345) >>> 0;
const NOISE_SHARE = 0.25;
const VOCABULARY = 64;

/** Words of a small vocabulary with noise between them: compresses about as a guest's pages do, to less than a half. */
export function writeReference(memory: Uint8Array, at: number): void {
  const words = new DataView(memory.buffer, memory.byteOffset + at, REFERENCE_BYTES);
  let random = 1;
  for (let offset = 0; offset < REFERENCE_BYTES; offset += 8) {
    random = next(random);
    const noise = random / 2 ** 32 < NOISE_SHARE;
    random = next(random);
    words.setUint32(offset, noise ? random : Math.imul((random >>> 16) % VOCABULARY, 0x9e3779b1), true);
    words.setUint32(offset + 4, noise ? next(random) : 0, true);
  }
}

/**
 * @param at of the reference in the pool's memory
 * @param to where REFERENCE_BYTES may be written
 * @returns times the speed of the host of USUAL_COSTS
 */
export async function measureHostSpeed(
  zstd: ZstdPool,
  at: number,
  to: number,
  clock: Pick<Clock, "monotonicMs">,
): Promise<number> {
  let leastMs = Number.POSITIVE_INFINITY;
  for (let run = 0; run < RUNS; run++) {
    const beganMs = clock.monotonicMs();
    await zstd.compress(at, REFERENCE_BYTES, to, REFERENCE_BYTES, LEVEL);
    leastMs = Math.min(leastMs, clock.monotonicMs() - beganMs);
  }
  const bytesPerSecond = (1000 * REFERENCE_BYTES) / leastMs;
  return Math.min(MOST, Math.max(1 / MOST, bytesPerSecond / USUAL_COSTS_ZSTD_BYTES_PER_SECOND));
}
