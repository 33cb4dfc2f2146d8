/**
 * Keeps samples of a guest's pages, to tell what pages would cost on the link: whole pages as the first copy sends
 * them, and deltas of pages that are dirtied again, by how long ago the page was sent. The samples lie in one flat
 * memory, whose size does not depend on the guest's:
 *
 *     | whole pages, in frames | a frame of dirtied pages | deltas, one frame for each age | bases |
 */
import type { PageKernels } from "../../shared/page/kernels.ts";
import { type Address, address, PAGE_SIZE } from "../../shared/units.ts";
import { DELTA_BYTES_MAX } from "../send/precopy-scheduler.ts";

/**
 * The age that a base must have reached before a delta against it is made, seconds; one age for each group of bases.
 * Several ages are sampled, because a delta grows with what the guest dirties meanwhile.
 */
const DELTA_AGES = [0, 0.3, 1, 3] as const;
/** The most pages of the guest that have a base. */
const BASES = 4096;
/**
 * The most frames of whole pages that are kept. With 8 frames the predicted bytes were 23 % too few, with 64 they are 0
 * to 9 % too few (docs/design/planning.md#what-pages-cost-on-the-link).
 */
const FRAMES = 64;
/**
 * A page that is dirtied again goes into the frame of dirtied pages only if it has no base, or if its base is at least
 * this old, seconds. Otherwise a page that is written all the time would fill the frame with copies of itself.
 */
const SAMPLED_ONCE_SECONDS = 0.5;

/** What was measured of the deltas whose bases had about the same age. */
export interface DeltaSample {
  /** Mean age of the base, seconds. */
  readonly seconds: number;
  /** How many pages were compared with their base. */
  readonly pages: number;
  /** How many of `pages` are sent whole, since their delta is too long. */
  readonly wholePages: number;
  /** Mean length of a delta, bytes. */
  readonly bytes: number;
  /** Where some of the deltas lie, one after the other, as zstd would be given them. */
  readonly at: Address;
  /** The total length of the deltas that lie at `at`, bytes. */
  readonly length: number;
}

export class PageSamples {
  private readonly kernels: PageKernels;
  private readonly frameBytes: number;
  private readonly region: number;
  private readonly dirtied: number;
  private readonly deltas: number;
  private readonly bases: number;
  /**
   * Every page whose number is a multiple of this has a base. The value is odd: with an even value, all sampled pages
   * within one large array of the guest could show the same field of the array's elements.
   */
  private readonly every: number;
  /** When each base was taken, seconds; NaN where there is none. */
  private readonly takenAt = new Float64Array(BASES).fill(Number.NaN);
  private readonly ages = DELTA_AGES.map(() => ({ pages: 0, whole: 0, seconds: 0, bytes: 0, compared: 0, length: 0 }));
  private contentPages = 0;
  private dirtiedPages = 0;
  /** Of the frames that the guest's whole pages fill, every `stride`-th is kept; `slots` says where each one lies. */
  private stride = 1;
  private slots: number[] = [];
  private readonly free = Array.from({ length: FRAMES }, (_, slot) => FRAMES - 1 - slot);

  /** How many bytes of memory the samples need, from the `region` of the constructor on. */
  static regionBytes(frameBytes: number): number {
    return (FRAMES + 1 + DELTA_AGES.length) * frameBytes + PAGE_SIZE * BASES;
  }

  constructor(kernels: PageKernels, region: Address, pageCount: number, frameBytes: number) {
    this.kernels = kernels;
    this.frameBytes = frameBytes;
    this.region = region;
    this.dirtied = region + FRAMES * frameBytes;
    this.deltas = this.dirtied + frameBytes;
    this.bases = this.deltas + DELTA_AGES.length * frameBytes;
    this.every = Math.ceil(pageCount / BASES) | 1;
  }

  /** Takes a page with content from the first copy. */
  first(page: number, at: Address, now: number): void {
    this.takeWhole(at);
    const slot = this.baseOf(page);
    if (slot >= 0) this.takeBase(slot, at, now);
  }

  /** Takes a page with content that was dirtied. */
  again(page: number, at: Address, now: number): void {
    const slot = this.baseOf(page);
    if (slot < 0) return;
    const age = now - this.takenAt[slot]!;
    if (!(age < SAMPLED_ONCE_SECONDS)) this.takeDirtied(at);
    const group = slot % DELTA_AGES.length;
    // a page without a base was zero, or has not come before
    if (Number.isNaN(age)) this.takeBase(slot, at, now);
    else if (age >= DELTA_AGES[group]!) {
      this.compare(group, slot, at, age);
      this.takeBase(slot, at, now);
    }
  }

  /** Notes that a page became zero: it has no base to compare with. */
  zero(page: number): void {
    const slot = this.baseOf(page);
    if (slot >= 0) this.takenAt[slot] = Number.NaN;
  }

  /** Where the whole pages lie, and how many bytes they are. Only full frames are given, unless there is none. */
  frames(): readonly { readonly at: Address; readonly length: number }[] {
    const { pagesAFrame } = this;
    const full = this.slots.filter((_, index) => (index * this.stride + 1) * pagesAFrame <= this.contentPages);
    if (full.length > 0) return full.map((slot) => ({ at: this.frameAt(slot), length: pagesAFrame * PAGE_SIZE }));
    const [only] = this.slots;
    return only === undefined ? [] : [{ at: this.frameAt(only), length: this.contentPages * PAGE_SIZE }];
  }

  /**
   * Where whole pages lie that were dirtied, and how many bytes they are. Memory that is written all the time does not
   * compress as other memory does.
   */
  dirtiedFrame(): { readonly at: Address; readonly length: number } {
    return { at: address(this.dirtied), length: Math.min(this.dirtiedPages, this.pagesAFrame) * PAGE_SIZE };
  }

  deltaSamples(): readonly DeltaSample[] {
    return this.ages.flatMap(({ pages, whole, seconds, bytes, compared, length }, group) =>
      pages === 0
        ? []
        : [
            {
              seconds: seconds / pages,
              pages,
              wholePages: whole,
              bytes: compared === 0 ? 0 : bytes / compared,
              at: address(this.deltas + group * this.frameBytes),
              length,
            },
          ],
    );
  }

  private get pagesAFrame(): number {
    return Math.floor(this.frameBytes / PAGE_SIZE);
  }

  private takeWhole(at: Address): void {
    const { pagesAFrame } = this;
    const frame = Math.floor(this.contentPages / pagesAFrame);
    const place = this.contentPages % pagesAFrame;
    this.contentPages++;
    if (place === 0) this.openFrame(frame);
    if (frame % this.stride !== 0) return;
    const slot = this.slots[frame / this.stride];
    if (slot !== undefined) this.kernels.copy(address(this.frameAt(slot) + place * PAGE_SIZE), at, PAGE_SIZE);
  }

  /**
   * Makes a place for a frame. So that the frames are from all over the guest, however large it is, every second frame
   * is given up when all places are taken.
   */
  private openFrame(frame: number): void {
    if (frame % this.stride !== 0) return;
    if (this.free.length === 0) {
      this.free.push(...this.slots.filter((_, index) => index % 2 === 1));
      this.slots = this.slots.filter((_, index) => index % 2 === 0);
      this.stride *= 2;
      if (frame % this.stride !== 0) return;
    }
    const slot = this.free.pop();
    if (slot !== undefined) this.slots.push(slot);
  }

  private compare(group: number, slot: number, at: Address, age: number): void {
    const seen = this.ages[group]!;
    const rest = this.frameBytes - seen.length;
    // the delta goes after the group's earlier deltas where there is room; else it overwrites the first of these, since
    // they are no better samples
    const out = this.deltas + group * this.frameBytes + (rest >= DELTA_BYTES_MAX ? seen.length : 0);
    const length = this.kernels.encodeDelta(this.baseAt(slot), at, address(out), DELTA_BYTES_MAX);
    seen.pages++;
    seen.seconds += age;
    if (length < 0) seen.whole++;
    else {
      seen.compared++;
      seen.bytes += length;
      if (rest >= DELTA_BYTES_MAX) seen.length += length;
    }
  }

  private takeDirtied(at: Address): void {
    const place = this.dirtiedPages++ % this.pagesAFrame;
    this.kernels.copy(address(this.dirtied + place * PAGE_SIZE), at, PAGE_SIZE);
  }

  /** @returns the slot of the page's base; -1 for a page that is not sampled */
  private baseOf(page: number): number {
    return page % this.every === 0 ? page / this.every : -1;
  }

  private takeBase(slot: number, at: Address, now: number): void {
    this.kernels.copy(this.baseAt(slot), at, PAGE_SIZE);
    this.takenAt[slot] = now;
  }

  private baseAt = (slot: number): Address => address(this.bases + slot * PAGE_SIZE);
  private frameAt = (slot: number): Address => address(this.region + slot * this.frameBytes);
}
