/**
 * The guest gets going at the destination. Its kernel and its program need some dozens of pages one after the other before they get
 * anything done; what is sent meanwhile that nobody waits for takes the link and the processors from the next of them. So for a moment
 * behind each of the first requests only pages go that are waited for (docs/decisions/0036). Pure; times are passed in, milliseconds.
 */

/** Of the first requests, so many. A guest that goes on asking is slower than the push, and better served by it. */
const FIRST_REQUESTS = 100;
/** About what it takes until the next one, where the guest goes from page to page. */
const QUIET_MS = 5;

export class QuietStart {
  private requests = 0;
  private lastMs = Number.NEGATIVE_INFINITY;

  /** The guest has got going. */
  get areOver(): boolean {
    return this.requests > FIRST_REQUESTS;
  }

  /** @param requests of the guest so far; @returns for so long nothing goes that nobody waits for */
  waitMs(requests: number, nowMs: number): number {
    if (requests !== this.requests) {
      this.requests = requests;
      this.lastMs = nowMs;
    }
    return this.areOver ? 0 : Math.max(0, this.lastMs + QUIET_MS - nowMs);
  }
}
