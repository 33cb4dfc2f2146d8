/**
 * Does the destination hear and answer at this moment? A connection that was cut looks whole until keep-alive finds it, and
 * a guest must not be stopped for a link that is not there. Pure; times are passed in, milliseconds.
 */

/** How often the destination is asked for its time, so that there is something to hear. */
export const ASK_EVERY_MS = 250;
/** Answers that may be missing, beside the round trip. */
const MISSED = 3;

export class SilenceDetector {
  private heardMs: number;

  constructor(nowMs: number) {
    this.heardMs = nowMs;
  }

  /** Something came from the destination. */
  heard(nowMs: number): void {
    this.heardMs = nowMs;
  }

  isSilent(nowMs: number, roundTripMs: number): boolean {
    return nowMs - this.heardMs > MISSED * (ASK_EVERY_MS + roundTripMs);
  }
}
