/** Counts what frames carry, by the kind of page record (shared/codec/page-frame.ts). */

/** How many pages were encoded as each kind, and into how many bytes before compression. */
export interface KindCounts {
  zeroPages: number;
  fullPages: number;
  deltaPages: number;
  zeroBytes: number;
  fullBytes: number;
  deltaBytes: number;
}

export const noCounts = (): KindCounts => ({
  zeroPages: 0,
  fullPages: 0,
  deltaPages: 0,
  zeroBytes: 0,
  fullBytes: 0,
  deltaBytes: 0,
});

export function clearCounts(counts: KindCounts): void {
  counts.zeroPages = 0;
  counts.fullPages = 0;
  counts.deltaPages = 0;
  counts.zeroBytes = 0;
  counts.fullBytes = 0;
  counts.deltaBytes = 0;
}

export function addCounts(total: KindCounts, frame: KindCounts): void {
  total.zeroPages += frame.zeroPages;
  total.fullPages += frame.fullPages;
  total.deltaPages += frame.deltaPages;
  total.zeroBytes += frame.zeroBytes;
  total.fullBytes += frame.fullBytes;
  total.deltaBytes += frame.deltaBytes;
}
