/**
 * Tells whether the destination hears and answers at this moment. A connection that was cut looks whole until
 * keep-alive finds the cut, and a guest must not be stopped for a link that is down. Pure: times are passed in,
 * milliseconds.
 */

/** How often the destination is asked for its time, so that there is something to hear, milliseconds. */
export const ASK_EVERY_MS = 250;
/** How many times ASK_EVERY_MS and a round trip may pass in silence: some answers may be missing. */
const MISSED = 3;

export class SilenceDetector {
  private heardMs: number;

  constructor(nowMs: number) {
    this.heardMs = nowMs;
  }

  /** Notes that something came from the destination. */
  heard(nowMs: number): void {
    this.heardMs = nowMs;
  }

  isSilent(nowMs: number, roundTripMs: number): boolean {
    return nowMs - this.heardMs > MISSED * (ASK_EVERY_MS + roundTripMs);
  }
}
