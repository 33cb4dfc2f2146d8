/**
 * Which pages go next, and as what. Pure: no clock, no link, no randomness; the same calls give the same frames.
 *
 * Late binding: a page is chosen and encoded only when fill() is called, which its owner does only while the link has
 * room. Until then a page that is dirtied again costs nothing (it is coalesced), and the order is up to date.
 *
 * Order: zero runs, then pending pages from the coldest to the hottest (Svärd et al., CloudCom 2011). The hottest are
 * held: as long as they are few enough for the switchover, their next version is likely to come, so only the last is sent.
 */
import { PageFrameWriter } from "../../shared/codec/page-frame.ts";
import { HeatMap, HOT_CLASS } from "../../shared/page/heat-map.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { NONE, PageStore, type PageStoreLimits, slotsOf, ZERO } from "../../shared/page/page-store.ts";
import { type Address, address, PAGE_SIZE, type PageIndex, pageIndex } from "../../shared/units.ts";
import type { FrameSource } from "./frame-source.ts";
import { addCounts, clearCounts, type KindCounts, noCounts } from "./kind-counts.ts";

export interface SchedulerOptions {
  readonly pageCount: number;
  readonly delta: boolean;
  readonly reorder: boolean;
  /** Arena: most pages pending with content. */
  readonly pendingSlots: number;
  /** Base cache: most pages kept as base; ignored without delta. */
  readonly baseSlots: number;
  /** More pages pending with content, once there are no bases any more. @default 0 */
  readonly reserveSlots?: number;
  readonly frameBytes: number;
}

/** A longer delta is not worth it: a full page compresses to about this (facts: zstd 2.0 to 2.4 on process memory). */
const DELTA_BYTES_MAX = 1800;
/** What a delta is taken to cost until some were measured. */
const DELTA_BYTES_GUESS = 512;
/** Pages that are enough for a mean, and to know it for all. */
const AGAIN_PAGES = 16;
const KNOWN_PAGES = 256;
/** Part of the newest of these means in what is taken for the next page. */
const SMOOTHING = 0.3;
/** Zero pages looked at in one fill: bounds the time that one call takes. */
const ZERO_SCAN_MAX = 65536;
/** Header and length of a record, about. */
const RECORD_BYTES = 3;

const limitsOf = ({ pendingSlots, baseSlots, reserveSlots = 0, delta }: SchedulerOptions): PageStoreLimits => ({
  pendingSlots,
  baseSlots: delta ? baseSlots : 0,
  reserveSlots,
});

export class PrecopyScheduler implements FrameSource {
  readonly pages: PageStore;
  readonly heat: HeatMap;
  /** Of the frame that fill() made last. */
  readonly frame: KindCounts = noCounts();
  /** Of all frames. */
  readonly total: KindCounts = noCounts();
  skipped = 0;
  /** Hot pages are left pending as long as no more than this many are pending; 0 holds none. */
  holdPages = 0;
  readonly hasUrgent = false;
  readonly reservedBuffers = 0;
  readonly isUnderWay = false;

  readonly kernels: PageKernels;
  private readonly writer: PageFrameWriter;
  private readonly options: SchedulerOptions;
  private readonly zeroPage: Address;
  /** Mean bytes of a page that was sent again and had a base, lately: of its delta, or whole where that was too long. */
  private againBytes = DELTA_BYTES_GUESS;
  /** Such pages that it was made of. */
  private knownPages: number;
  /** Such pages since that was last worked out, and their bytes. */
  private againPages = 0;
  private againPagesBytes = 0;

  /** Memory that a scheduler needs at its region, bytes. */
  static regionBytes(options: SchedulerOptions): number {
    return PAGE_SIZE * (1 + slotsOf(limitsOf(options)));
  }

  /** Uses [region, region + regionBytes(options)) of the kernels' memory. */
  constructor(kernels: PageKernels, region: Address, options: SchedulerOptions) {
    this.kernels = kernels;
    this.options = options;
    // without deltas it is a whole page in any case
    this.knownPages = options.delta ? 0 : KNOWN_PAGES;
    this.zeroPage = region;
    kernels.memory.fill(0, region, region + PAGE_SIZE);
    this.heat = new HeatMap(options.pageCount);
    this.writer = new PageFrameWriter(kernels);
    const storeOptions = { pageCount: options.pageCount, byHeat: options.reorder };
    this.pages = new PageStore(kernels, address(region + PAGE_SIZE), limitsOf(options), this.heat, storeOptions);
  }

  /** A page came from QEMU with its content at `at`; false, and nothing done, when there is no room for it. */
  capture(page: PageIndex, at: Address): boolean {
    return this.kernels.isZero(at) ? this.pages.captureZero(page) : this.pages.capture(page, at);
  }

  captureZero(page: PageIndex): boolean {
    return this.pages.captureZero(page);
  }

  /** One epoch of heat has passed. */
  fade(): void {
    this.pages.fade();
  }

  get isEmpty(): boolean {
    return this.pages.pendingCount === 0 && this.pages.zeroCount === 0;
  }

  /** True when fill() would make a frame. */
  get hasWork(): boolean {
    const { holdPages } = this;
    if (this.pages.zeroCount > 0) return true;
    if (this.pages.pendingCount === 0) return false;
    return this.pages.pendingCount > holdPages || this.pages.coldestPendingClass() < HOT_CLASS;
  }

  quietMs(): number {
    return 0;
  }

  fillUrgent(): number {
    return 0;
  }

  fill(at: Address): number {
    if (!this.hasWork) return 0;
    const { writer, pages, holdPages } = this;
    clearCounts(this.frame);
    writer.begin(at, this.options.frameBytes);
    this.fillZeros();
    while (writer.hasRoom && pages.pendingCount > 0) {
      if (pages.pendingCount <= holdPages && pages.coldestPendingClass() >= HOT_CLASS) break;
      this.encode(pages.coldestPending());
    }
    this.addFrame();
    return writer.isEmpty ? 0 : writer.finish();
  }

  /** Is it known what a page costs that is sent again, or a guess? */
  get knowsAgain(): boolean {
    return this.knownPages >= KNOWN_PAGES;
  }

  /** What would have to be sent if nothing more came: pages, and bytes before compression (estimated). */
  residualPages(): number {
    return this.pages.pendingCount;
  }

  residualBytes(): number {
    const withBase = this.pages.pendingWithBase;
    const without = this.pages.pendingCount - withBase;
    return withBase * (this.againBytes + RECORD_BYTES) + without * (PAGE_SIZE + RECORD_BYTES) + this.pages.zeroCount;
  }

  /** The same of what fill() would send; of held pages, those that have a base: hot ones were sent before. */
  get workBytes(): number {
    if (!this.hasWork) return 0;
    const { pendingCount, pendingWithBase } = this.pages;
    const withBase = Math.max(0, pendingWithBase - this.holdPages);
    return withBase * (this.againBytes + RECORD_BYTES) + (pendingCount - pendingWithBase) * (PAGE_SIZE + RECORD_BYTES);
  }

  /** Mean bytes that one more dirtied page is likely to cost, before compression (estimated). */
  bytesPerDirtyPage(): number {
    return (this.options.delta ? this.againBytes : PAGE_SIZE) + RECORD_BYTES;
  }

  private fillZeros(): void {
    const { pages, writer } = this;
    let scanned = 0;
    // with nothing found it goes on: an empty frame would be taken for the end, with pages behind it
    while (!pages.zeros.isEmpty && writer.hasRoom && (scanned < ZERO_SCAN_MAX || writer.isEmpty)) {
      const first = pages.zeros.frontPage;
      const length = Math.min(pages.zeros.frontLength, ZERO_SCAN_MAX);
      scanned += length;
      let run = 0;
      for (let page = first; page < first + length; page++) {
        if (this.takeZero(pageIndex(page))) {
          run++;
          continue;
        }
        if (run > 0) this.zeroRun(page - run, run);
        run = 0;
        if (!writer.hasRoom) {
          pages.zeros.advance(page + 1 - first);
          return;
        }
      }
      if (run > 0) this.zeroRun(first + length - run, run);
      pages.zeros.advance(length);
    }
  }

  /** Is the page still pending as zero, and is that news to the destination? */
  private takeZero(page: PageIndex): boolean {
    if (!this.pages.isPendingZero(page)) return false;
    const known = this.pages.baseOf(page) === ZERO;
    this.pages.sentZero(page);
    if (known) this.skipped++;
    return !known;
  }

  private zeroRun(page: number, length: number): void {
    this.writer.zeroRun(page, length);
    this.frame.zeroPages += length;
    this.frame.zeroBytes += RECORD_BYTES;
  }

  private encode(slot: number): void {
    const { pages, writer, frame } = this;
    const page = pages.pageOf(slot);
    const content = pages.addressOf(slot);
    const base = pages.baseOf(page);
    if (base !== NONE && this.options.delta) {
      const baseAt = base === ZERO ? this.zeroPage : pages.addressOf(base);
      const length = this.kernels.encodeDelta(baseAt, content, writer.deltaPlace, DELTA_BYTES_MAX);
      if (length === 0) {
        this.skipped++;
        pages.skipPending(page, slot);
        return;
      }
      if (length > 0) {
        writer.delta(page, length);
        this.againPages++;
        this.againPagesBytes += length;
        frame.deltaPages++;
        frame.deltaBytes += length + RECORD_BYTES;
        pages.sentContent(page, slot, true);
        return;
      }
      this.againPages++;
      this.againPagesBytes += PAGE_SIZE;
    }
    writer.full(page, content);
    frame.fullPages++;
    frame.fullBytes += PAGE_SIZE + RECORD_BYTES;
    pages.sentContent(page, slot, this.options.delta);
  }

  private addFrame(): void {
    addCounts(this.total, this.frame);
    if (this.againPages < AGAIN_PAGES) return;
    this.knownPages += this.againPages;
    const part = Math.max(SMOOTHING, this.againPages / this.knownPages);
    this.againBytes += part * (this.againPagesBytes / this.againPages - this.againBytes);
    this.againPages = 0;
    this.againPagesBytes = 0;
  }
}
