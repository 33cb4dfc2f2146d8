/**
 * Predicts the level of zstd at which a migration is likely to settle: the level at which a page takes the least time.
 * The sender of a migration does not use this calculation: it changes the level by whether it waits more often for the
 * link or for the compression threads (shared/codec/chooser.ts).
 */
import { PAGE_SIZE } from "../units.ts";

export interface CodecChoice {
  /** The level of zstd; undefined for no compression. */
  readonly level: number | undefined;
  /** Mean encoded bytes of a page that is sent whole. */
  readonly pageBytes: number;
  /** How many raw bytes one thread compresses in a second. */
  readonly bytesPerSecond: number;
}

/**
 * Returns the choice with which a page takes the least time; of two that take the same time, the one with fewer bytes.
 * @param workers how many threads compress
 */
export function bestChoice(choices: readonly CodecChoice[], linkBytesPerSecond: number, workers: number): CodecChoice {
  const seconds = ({ pageBytes, bytesPerSecond }: CodecChoice): number =>
    Math.max(pageBytes / Math.max(1, linkBytesPerSecond), PAGE_SIZE / (Math.max(1, workers) * bytesPerSecond));
  const [first, ...others] = choices;
  if (first === undefined) throw new RangeError("there is nothing to choose from");
  let best = first;
  for (const one of others) {
    const [mine, its] = [seconds(one), seconds(best)];
    if (mine < its || (mine === its && one.pageBytes < best.pageBytes)) best = one;
  }
  return best;
}
