/**
 * Limits what is sent in the first moments of a guest at its destination in post-copy. The guest's kernel and program
 * need some dozens of pages, one after the other, before they get anything done. Pages for which the guest does not
 * wait would take the link and the processors from the next page that it needs. So for a moment after each of the first
 * requests, only requested pages are sent (docs/design/post-copy.md#what-queues-before-a-requested-page). Pure: times
 * are passed in, milliseconds.
 */

/**
 * How many requests count as first. A guest that makes more requests is slower than the active push, which then serves
 * the guest better (50 and 200 were measured, docs/design/post-copy.md#constants).
 */
const FIRST_REQUESTS = 100;
/**
 * For how long after one of the first requests only requested pages are sent, milliseconds: about the time until the
 * next request of a guest that goes from page to page.
 */
const QUIET_MS = 5;

export class QuietStart {
  private requests = 0;
  /** The value of `requests` at the last call of waitMs(). */
  private seen = 0;
  /** When new requests were last seen, milliseconds. */
  private seenMs = Number.NEGATIVE_INFINITY;

  /** True once the guest has made more than FIRST_REQUESTS requests. */
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
