/**
 * A set of pages, for example those that the destination misses or has asked for, with one bit for each page of the
 * guest. It takes 32 KiB for a GiB of guest memory. Ranges go in and come out as numbers, so that no object is made for
 * a page or a range:
 *
 *     for (let page = set.next(0); page < set.pageCount; page = set.next(end)) { end = set.nextAbsent(page); … }
 */

const ALL = 0xffffffff;

export class PageSet {
  readonly pageCount: number;
  private readonly words: Uint32Array;
  private members = 0;

  /** Makes an empty set for pages [0, pageCount). */
  constructor(pageCount: number) {
    this.pageCount = pageCount;
    this.words = new Uint32Array(Math.ceil(pageCount / 32));
  }

  /** How many pages are in the set. */
  get size(): number {
    return this.members;
  }

  has(page: number): boolean {
    return ((this.words[page >>> 5] ?? 0) & (1 << (page & 31))) !== 0;
  }

  /** Adds a page. @returns true when the page was absent @throws RangeError when there is no such page */
  add(page: number): boolean {
    this.check(page, page + 1);
    const bit = 1 << (page & 31);
    const word = this.words[page >>> 5]!;
    if ((word & bit) !== 0) return false;
    this.words[page >>> 5] = word | bit;
    this.members++;
    return true;
  }

  /** Removes a page. @returns true when the page was in the set */
  remove(page: number): boolean {
    if (!this.has(page)) return false;
    this.words[page >>> 5]! &= ~(1 << (page & 31));
    this.members--;
    return true;
  }

  /** Adds [first, first + count). @returns how many were absent @throws RangeError when there are no such pages */
  addRange(first: number, count: number): number {
    return this.change(first, count, true);
  }

  /**
   * Removes [first, first + count).
   * @returns how many were in the set
   * @throws RangeError when there are no such pages
   */
  removeRange(first: number, count: number): number {
    return this.change(first, count, false);
  }

  clear(): void {
    this.words.fill(0);
    this.members = 0;
  }

  /** Finds the first page from `page` on that is in the set. @returns pageCount when there is none */
  next(page: number): number {
    return this.find(page, 0);
  }

  /** Finds the first page from `page` on that is not in the set. @returns pageCount when there is none */
  nextAbsent(page: number): number {
    return this.find(page, ALL);
  }

  /**
   * Adds the pages of [first, first + count) whose bits are set, and removes the others. Page first + i is bit i % 8 of
   * byte i / 8, as QEMU writes bitmaps.
   * @throws RangeError when there are no such pages, or fewer bits than pages
   */
  setBits(first: number, count: number, bits: Uint8Array): void {
    this.check(first, first + count);
    if (bits.length * 8 < count) throw new RangeError(`${bits.length} bytes of bits for ${count} pages`);
    for (let i = 0; i < count; i += 8) {
      const byte = bits[i >>> 3]!;
      const end = Math.min(count, i + 8);
      // in most bytes all bits are alike
      if (byte === 0) this.removeRange(first + i, end - i);
      else if (byte === 0xff) this.addRange(first + i, end - i);
      else
        for (let k = i; k < end; k++)
          if ((byte & (1 << (k & 7))) === 0) this.remove(first + k);
          else this.add(first + k);
    }
  }

  /** Returns the bits of [first, first + count), padded with 0 to whole bytes: the inverse of setBits(). */
  bits(first: number, count: number): Uint8Array {
    const end = first + count;
    this.check(first, end);
    const bits = new Uint8Array(Math.ceil(count / 8));
    for (let page = this.next(first); page < end; page = this.next(page + 1)) {
      const i = page - first;
      bits[i >>> 3]! |= 1 << (i & 7);
    }
    return bits;
  }

  private change(first: number, count: number, present: boolean): number {
    const end = first + count;
    this.check(first, end);
    let changed = 0;
    for (let page = first; page < end; page = (page | 31) + 1) {
      const index = page >>> 5;
      // the bits of this word from `page` up to the range's end
      const mask = (ALL << (page & 31)) & (end - page >= 32 - (page & 31) ? ALL : ~(ALL << (end & 31)));
      const word = this.words[index]!;
      const made = present ? word | mask : word & ~mask;
      changed += bitCount(word ^ made);
      this.words[index] = made;
    }
    this.members += present ? changed : -changed;
    return changed;
  }

  /** Finds the first page from `page` on, word by word. @param flip 0 for a page in the set, ALL for one that is not */
  private find(page: number, flip: number): number {
    const { words, pageCount } = this;
    if (page >= pageCount) return pageCount;
    let index = page >>> 5;
    let word = (words[index]! ^ flip) & (ALL << (page & 31));
    while (word === 0) {
      index++;
      if (index === words.length) return pageCount;
      word = words[index]! ^ flip;
    }
    // word & -word is the lowest bit that is set
    return Math.min(pageCount, index * 32 + 31 - Math.clz32(word & -word));
  }

  private check(first: number, end: number): void {
    if (first < 0 || end > this.pageCount || end < first)
      throw new RangeError(`pages ${first} to ${end} of ${this.pageCount}`);
  }
}

/** Counts the bits that are set, in parallel: in pairs, then in nibbles, then in bytes. */
function bitCount(word: number): number {
  let sum = word - ((word >>> 1) & 0x55555555);
  sum = (sum & 0x33333333) + ((sum >>> 2) & 0x33333333);
  sum = (sum + (sum >>> 4)) & 0x0f0f0f0f;
  return Math.imul(sum, 0x01010101) >>> 24;
}
