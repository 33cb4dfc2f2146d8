/**
 * Measures what it costs this host to touch memory for the first time. On hardware it is some 0.3 microseconds a page;
 * in a virtual machine whose host has to find the page as well, it was 1.4 to 15
 * (docs/design/memory-and-v8.md#memory-that-stays).
 */
import { PAGE_SIZE } from "../../units.ts";
import type { Clock } from "../clock.ts";

/** How much memory is touched, bytes: enough that the allocator asks the system for it. */
const TOUCHED_BYTES = 4 << 20;

/** @returns microseconds for each page of 4 KiB */
export function firstTouchMicros(clock: Clock): number {
  const memory = Buffer.allocUnsafeSlow(TOUCHED_BYTES);
  const startMs = clock.monotonicMs();
  for (let at = 0; at < TOUCHED_BYTES; at += PAGE_SIZE) memory[at] = 1;
  return ((clock.monotonicMs() - startMs) * 1000 * PAGE_SIZE) / TOUCHED_BYTES;
}
