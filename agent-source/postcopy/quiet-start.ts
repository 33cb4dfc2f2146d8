/**
 * The first moments of a guest at its destination in post-copy. Its kernel and its program need some dozens of pages,
 * one after the other, before they get anything done. Pages for which the guest does not wait would take the link and
 * the processors from the next page that it needs. So for a moment after each of the first requests, only requested
 * pages are sent (docs/decisions/0036). Pure: times are passed in, milliseconds.
 */

/** How many requests count as first. A guest that asks for more is slower than the active push, which serves it better. */
const FIRST_REQUESTS = 100;
/** About the time until the next request of a guest that goes from page to page, milliseconds. */
const QUIET_MS = 5;

export class QuietStart {
  private requests = 0;
  /** How many requests there were at the last look, and when that look was. */
  private seen = 0;
  private seenMs = Number.NEGATIVE_INFINITY;

  /** True once the guest has made more than the first requests. */
  get isOver(): boolean {
    return this.requests > FIRST_REQUESTS;
  }

  /** Notes that the guest has asked for a page. */
  requested(): void {
    this.requests++;
  }

  /** @returns for how long only requested pages are to be sent, milliseconds */
  waitMs(nowMs: number): number {
    if (this.requests !== this.seen) {
      this.seen = this.requests;
      this.seenMs = nowMs;
    }
    return this.isOver ? 0 : Math.max(0, this.seenMs + QUIET_MS - nowMs);
  }
}
