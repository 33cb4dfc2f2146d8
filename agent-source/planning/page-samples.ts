/**
 * Samples of a guest's pages, for what they would cost on the link: whole ones as the first copy sends them, and deltas of
 * pages that are dirtied again, by how long ago they were sent. In one flat memory, of a size that the guest's does not change:
 *
 *     | whole pages, in frames | a frame of dirtied ones | deltas, one frame for each age | bases |
 */
import type { PageKernels } from "../../shared/page/kernels.ts";
import { type Address, address, PAGE_SIZE } from "../../shared/units.ts";

/** Deltas are asked of bases that are at least so old, seconds: a delta grows with what is dirtied meanwhile. */
export const DELTA_AGES = [0, 0.3, 1, 3] as const;
/** A longer one is sent as the whole page (precopy-scheduler.ts). */
const DELTA_BYTES_MAX = 1800;
const BASES = 4096;
const FRAMES = 64;
const SAMPLED_ONCE_SECONDS = 0.5;

/** What deltas of one age came to. */
export interface DeltaSample {
  /** Mean age of the base, seconds. */
  readonly seconds: number;
  /** Pages that were compared, and of these, ones that are sent whole. */
  readonly pages: number;
  readonly wholePages: number;
  /** Mean length of a delta, bytes. */
  readonly bytes: number;
  /** Some of them, one behind the other: what zstd would be given. */
  readonly at: Address;
  readonly length: number;
}

export class PageSamples {
  private readonly kernels: PageKernels;
  private readonly frameBytes: number;
  private readonly region: number;
  private readonly dirtied: number;
  private readonly deltas: number;
  private readonly bases: number;
  /** Every so many pages of the guest have a base; odd, so that no array of the guest's is hit at the same field only. */
  private readonly every: number;
  /** When the base was taken, seconds; NaN where there is none. */
  private readonly takenAt = new Float64Array(BASES).fill(Number.NaN);
  private readonly ages = DELTA_AGES.map(() => ({ pages: 0, whole: 0, seconds: 0, bytes: 0, compared: 0, length: 0 }));
  private contentPages = 0;
  private dirtiedPages = 0;
  /** Frames of whole pages that are kept: every `stride`-th of the guest's, in `slots`. */
  private stride = 1;
  private slots: number[] = [];
  private readonly free = Array.from({ length: FRAMES }, (_, slot) => FRAMES - 1 - slot);

  /** Bytes that it needs at its region. */
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

  /** A page with content, of the first copy. */
  first(page: number, at: Address, now: number): void {
    this.takeWhole(at);
    const slot = this.baseOf(page);
    if (slot >= 0) this.takeBase(slot, at, now);
  }

  /** A page with content that was dirtied. */
  again(page: number, at: Address, now: number): void {
    const slot = this.baseOf(page);
    if (slot < 0) return;
    const age = now - this.takenAt[slot]!;
    // one that is written all the time would fill the frame with itself
    if (!(age < SAMPLED_ONCE_SECONDS)) this.takeDirtied(at);
    const group = slot % DELTA_AGES.length;
    // without a base: it was zero, or never seen
    if (Number.isNaN(age)) this.takeBase(slot, at, now);
    else if (age >= DELTA_AGES[group]!) {
      this.compare(group, slot, at, age);
      this.takeBase(slot, at, now);
    }
  }

  /** A page became zero: it has no base to compare with. */
  zero(page: number): void {
    const slot = this.baseOf(page);
    if (slot >= 0) this.takenAt[slot] = Number.NaN;
  }

  /** Where whole pages are, and how many bytes; full frames where there is one. */
  frames(): readonly { readonly at: Address; readonly length: number }[] {
    const { pagesAFrame } = this;
    const full = this.slots.filter((_, index) => (index * this.stride + 1) * pagesAFrame <= this.contentPages);
    if (full.length > 0) return full.map((slot) => ({ at: this.frameAt(slot), length: pagesAFrame * PAGE_SIZE }));
    const [only] = this.slots;
    return only === undefined ? [] : [{ at: this.frameAt(only), length: this.contentPages * PAGE_SIZE }];
  }

  /** Of pages that were dirtied, whole: what is written all the time compresses otherwise than what lies there. */
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

  /** Keeps frames from all over the guest, however large it is: when all places are taken, every other one is given up. */
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
    // behind the ones before it where there is room, else over the last ones, which are as good
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

  /** @returns -1 for a page that is no sample */
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
