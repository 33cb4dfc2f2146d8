/**
 * Decides whether the memory of a migration is kept for the next one
 * (docs/design/memory-and-v8.md#memory-that-stays).
 */
import type { Clock } from "../../shared/runtime/clock.ts";
import { firstTouchMicros } from "../../shared/runtime/host/first-touch.ts";
import type { Logger } from "../../shared/runtime/log/log.ts";
import { returnMemory } from "../../shared/runtime/v8/return-memory.ts";
import { KeptMemory } from "../send/kept-memory.ts";

/**
 * With the setting `auto`, memory is kept where the first touch of a page takes at least this long, microseconds.
 * Clearing a page, which kept memory needs instead, takes 0.4 microseconds.
 */
const DEAR_MICROS = 2;

/**
 * Makes the KeptMemory of an agent, as the setting `memory.keep` says.
 * @returns undefined where memory is not kept
 */
export function keepMemory(
  setting: "auto" | "on" | "off",
  clock: Clock,
  log: Pick<Logger, "info">,
): KeptMemory | undefined {
  if (setting === "off") return undefined;
  if (setting === "auto") {
    const micros = firstTouchMicros(clock);
    log.info(
      { microsAPage: micros.toFixed(2), keeps: micros >= DEAR_MICROS },
      "measured what the first touch of a page costs",
    );
    if (micros < DEAR_MICROS) return undefined;
  }
  return new KeptMemory(clock, () => void returnMemory());
}
