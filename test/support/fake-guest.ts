/**
 * A simulated guest for tests of the pure core, and a destination that takes its frames. The guest has memory of its
 * own, dirties pages from a seed, and offers its dirty pages as QEMU would. Whatever the scheduler does with these
 * pages, its frames must rebuild the guest's memory.
 */

import type { PrecopyScheduler } from "../../agent-source/send/precopy-scheduler.ts";
import { PageFrameReader } from "../../shared/codec/page-frame.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { address, PAGE_SIZE, pageIndex } from "../../shared/units.ts";

/** Makes a generator of numbers from 0 inclusive to 1 exclusive, which the seed decides (xorshift32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

export class FakeGuest {
  readonly memory: Uint8Array;
  readonly pageCount: number;
  private readonly dirty = new Set<number>();
  private readonly random: () => number;

  constructor(pageCount: number, seed: number) {
    this.pageCount = pageCount;
    this.memory = new Uint8Array(pageCount * PAGE_SIZE);
    this.random = seeded(seed);
    for (let page = 0; page < pageCount; page++) {
      this.dirty.add(page);
      // a third of the pages stay zero
      if (page % 3 !== 0) this.scribble(page, 512);
    }
  }

  /** Changes words of a page at random, `words` times. */
  scribble(page: number, words: number): void {
    for (let i = 0; i < words; i++) {
      const at = page * PAGE_SIZE + Math.floor(this.random() * 512) * 8;
      this.memory.fill(Math.floor(this.random() * 256), at, at + 8);
    }
    this.dirty.add(page);
  }

  /** Makes a page zero. */
  wipe(page: number): void {
    this.memory.fill(0, page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
    this.dirty.add(page);
  }

  /** A number below `limit`, from the seed. */
  pick(limit: number): number {
    return Math.floor(this.random() * limit);
  }

  /**
   * Gives at most `pages` dirty pages to the scheduler, through `window` of the kernels' memory.
   * @returns how many pages the scheduler took
   */
  feed(scheduler: PrecopyScheduler, kernels: PageKernels, window: number, pages: number): number {
    let fed = 0;
    for (const page of this.dirty) {
      if (fed === pages) break;
      kernels.memory.set(this.memory.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE), window);
      if (!scheduler.capture(pageIndex(page), address(window))) break;
      this.dirty.delete(page);
      fed++;
    }
    return fed;
  }

  get isClean(): boolean {
    return this.dirty.size === 0;
  }
}

/** Does with the frames what a destination's QEMU would do, so that its memory can be compared with the guest's. */
export class FakeDestination {
  readonly memory: Uint8Array;
  private readonly reader: PageFrameReader;
  private readonly kernels: PageKernels;
  private readonly scratch: number;
  /** The page of each record, in the order of the records. */
  readonly order: number[] = [];

  /** @param scratch the address of a page of the kernels' memory that nothing else uses */
  constructor(kernels: PageKernels, pageCount: number, scratch: number) {
    this.memory = new Uint8Array(pageCount * PAGE_SIZE).fill(0xee);
    this.kernels = kernels;
    this.scratch = scratch;
    this.reader = new PageFrameReader(kernels, pageCount, true);
  }

  readonly hasRoom = true;

  take(at: number, length: number): void {
    this.reader.open(address(at), length);
    this.reader.drain(this);
  }

  zeroPage(page: number): void {
    this.order.push(page);
    this.memory.fill(0, page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
  }

  page(page: number, at: number): void {
    this.order.push(page);
    this.memory.set(this.kernels.memory.subarray(at, at + PAGE_SIZE), page * PAGE_SIZE);
  }

  delta(page: number, at: number, length: number): void {
    this.order.push(page);
    const place = this.memory.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
    this.kernels.memory.set(place, this.scratch);
    if (this.kernels.decodeDelta(address(this.scratch), address(at), length) < 0) throw new Error("not XBZRLE");
    place.set(this.kernels.memory.subarray(this.scratch, this.scratch + PAGE_SIZE));
  }
}
