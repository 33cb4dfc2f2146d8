/**
 * Pages that are pending as zero, as ranges in the order of arrival. The ranges only say where to look. Whether a page
 * of a range is still pending as zero is known to the page store, so a page that has got content meanwhile need not be
 * searched for and removed here.
 */
export class ZeroQueue {
  private readonly first: Int32Array;
  private readonly length: Int32Array;
  private head = 0;
  private count = 0;

  /** @param capacity the most ranges */
  constructor(capacity = 65536) {
    this.first = new Int32Array(capacity);
    this.length = new Int32Array(capacity);
  }

  get isEmpty(): boolean {
    return this.count === 0;
  }

  /** Adds a page. @returns false when there is no room for another range */
  push(page: number): boolean {
    if (this.count > 0) {
      const last = (this.head + this.count - 1) % this.first.length;
      if (this.first[last]! + this.length[last]! === page) {
        this.length[last]!++;
        return true;
      }
    }
    if (this.count === this.first.length) return false;
    const slot = (this.head + this.count) % this.first.length;
    this.first[slot] = page;
    this.length[slot] = 1;
    this.count++;
    return true;
  }

  /** The first page of the oldest range. The queue must not be empty. */
  get frontPage(): number {
    return this.first[this.head]!;
  }

  /** How many pages the oldest range has. The queue must not be empty. */
  get frontLength(): number {
    return this.length[this.head]!;
  }

  /** Removes `pages` pages from the start of the oldest range, which must have at least as many. */
  advance(pages: number): void {
    this.first[this.head]! += pages;
    this.length[this.head]! -= pages;
    if (this.length[this.head]! > 0) return;
    this.head = (this.head + 1) % this.first.length;
    this.count--;
  }
}
