/**
 * Chooses which pages go next in precopy, and encodes each as a zero run, a delta or a full page; a page whose content
 * the destination has already is skipped. Pure: it has no clock, no link and no randomness, so the same calls give the
 * same frames.
 *
 * Late binding: a page is chosen and encoded only when fill() is called, and the owner calls fill() only while the link
 * has room. Until then a page that is dirtied again costs nothing (it is coalesced), and the order is up to date.
 *
 * Order: zero runs, then pending pages from the coldest to the hottest (Svärd et al., CloudCom 2011). The hottest pages
 * are held as long as they are few enough for the switchover: their next version is likely to come, so only their last
 * version is sent.
 */
import { PageFrameWriter } from "../../shared/codec/page-frame.ts";
import { HeatMap, HOT_CLASS } from "../../shared/page/heat-map.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { NONE, PageStore, type PageStoreLimits, slotsOf, ZERO } from "../../shared/page/page-store.ts";
import { type Address, address, PAGE_SIZE, type PageIndex, pageIndex } from "../../shared/units.ts";
import type { FrameSource } from "./frame-source.ts";
import { addCounts, clearCounts, type KindCounts, noCounts } from "./kind-counts.ts";

export interface SchedulerOptions {
  /** How many pages the guest has, in all RAM blocks. */
  readonly pageCount: number;
  /** True if pages that have a base are sent as deltas. */
  readonly delta: boolean;
  /** True if pages go in the order of their heat, false if they go in the order of their arrival. */
  readonly reorder: boolean;
  /** The size of the arena: how many pages may be pending with content. */
  readonly pendingSlots: number;
  /** The size of the base cache: how many pages may be kept as bases. Ignored without `delta`. */
  readonly baseSlots: number;
  /**
   * How many slots for pending pages are added in post-copy, which uses the slots of the bases for pending pages too.
   * @default 0
   */
  readonly reserveSlots?: number;
  /** How many bytes of pages a frame may have, before compression. */
  readonly frameBytes: number;
}

/**
 * The longest delta that is sent, bytes. A longer delta is not worth it: zstd makes pages of process memory 2.0 to 2.4
 * times smaller, so a full page is sent in about as many bytes.
 */
export const DELTA_BYTES_MAX = 1800;
/** What a page that is sent again is taken to cost until some were measured, bytes. */
const DELTA_BYTES_GUESS = 512;
/** `againBytes` is computed anew once at least this many pages were sent again since it was last computed. */
const AGAIN_PAGES = 16;
/** `againBytes` counts as measured, and not as a guess, once it comes from this many pages that were sent again. */
const KNOWN_PAGES = 256;
/** The least weight of the newest mean in `againBytes`. */
const SMOOTHING = 0.3;
/**
 * How many zero pages one call of fill() looks at; this bounds the time of the call. A call whose frame is still empty
 * looks at more, until it finds a page to send.
 */
const ZERO_SCAN_MAX = 65536;
/** About how many bytes a record has beside its page or delta. */
export const RECORD_BYTES = 3;

const limitsOf = ({ pendingSlots, baseSlots, reserveSlots = 0, delta }: SchedulerOptions): PageStoreLimits => ({
  pendingSlots,
  baseSlots: delta ? baseSlots : 0,
  reserveSlots,
});

export class PrecopyScheduler implements FrameSource {
  readonly pages: PageStore;
  readonly heat: HeatMap;
  /** What the frame carries that fill() made last. */
  readonly frame: KindCounts = noCounts();
  /** What all frames of the migration carry; PostcopyScheduler adds its frames. */
  readonly total: KindCounts = noCounts();
  /** How many pages were not sent because the destination has their content already. */
  skipped = 0;
  /** Hot pages are held as long as no more pages than this are pending; 0 holds none. */
  holdPages = 0;
  readonly hasUrgent = false;
  readonly reservedBuffers = 0;
  readonly isUnderWay = false;

  readonly kernels: PageKernels;
  private readonly writer: PageFrameWriter;
  private readonly options: SchedulerOptions;
  /** A page of zeros: the base of pages that were sent as zero. */
  private readonly zeroPage: Address;
  /**
   * Moving average of the bytes of a page that is sent again and has a base: the length of its delta, or 4096 where the
   * delta would be too long.
   */
  private againBytes = DELTA_BYTES_GUESS;
  /** From how many pages that were sent again `againBytes` was computed. */
  private knownPages: number;
  /** How many pages were sent again since `againBytes` was last computed. */
  private againPages = 0;
  /** The bytes of the pages that `againPages` counts. */
  private againPagesBytes = 0;

  /** @returns how many bytes of memory a scheduler with these options needs */
  static regionBytes(options: SchedulerOptions): number {
    return PAGE_SIZE * (1 + slotsOf(limitsOf(options)));
  }

  /** Uses [region, region + regionBytes(options)) of the kernels' memory. */
  constructor(kernels: PageKernels, region: Address, options: SchedulerOptions) {
    this.kernels = kernels;
    this.options = options;
    // without deltas a page that is sent again is a full page, so nothing has to be measured
    this.knownPages = options.delta ? 0 : KNOWN_PAGES;
    this.zeroPage = region;
    kernels.memory.fill(0, region, region + PAGE_SIZE);
    this.heat = new HeatMap(options.pageCount);
    this.writer = new PageFrameWriter(kernels);
    const storeOptions = { pageCount: options.pageCount, byHeat: options.reorder };
    this.pages = new PageStore(kernels, address(region + PAGE_SIZE), limitsOf(options), this.heat, storeOptions);
  }

  /**
   * Takes a page whose content from QEMU is at `at`.
   * @returns false if there is no room for the page; nothing has changed then
   */
  capture(page: PageIndex, at: Address): boolean {
    return this.kernels.isZero(at) ? this.pages.captureZero(page) : this.pages.capture(page, at);
  }

  /**
   * Takes a page that QEMU has sent as zero.
   * @returns false if there is no room to note it; nothing has changed then
   */
  captureZero(page: PageIndex): boolean {
    return this.pages.captureZero(page);
  }

  /** Halves the heat of all pages. Called every FADE_MS (agent-source/transfer/precopy-capture.ts). */
  fade(): void {
    this.pages.fade();
  }

  get frameAt(): Address {
    return this.writer.frameAt;
  }

  get isEmpty(): boolean {
    return this.pages.pendingCount === 0 && this.pages.zeroCount === 0;
  }

  /** True while pages are pending that are not held. */
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

  /** True once `againBytes` comes from at least KNOWN_PAGES pages, and is not a guess. */
  get resendCostIsMeasured(): boolean {
    return this.knownPages >= KNOWN_PAGES;
  }

  /** @returns how many pages with content would have to be sent if no more pages came; zero pages do not count */
  residualPages(): number {
    return this.pages.pendingCount;
  }

  /**
   * @returns an estimate of the bytes that would have to be sent if no more pages came, before compression; a zero page
   *   counts as one byte
   */
  residualBytes(): number {
    const withBase = this.pages.pendingWithBase;
    const without = this.pages.pendingCount - withBase;
    return withBase * (this.againBytes + RECORD_BYTES) + without * (PAGE_SIZE + RECORD_BYTES) + this.pages.zeroCount;
  }

  /**
   * An estimate of the bytes of the pages with content that are pending and not held, before compression. All held
   * pages are taken for pages that have a base, because hot pages were sent before.
   */
  get workBytes(): number {
    if (!this.hasWork) return 0;
    const { pendingCount, pendingWithBase } = this.pages;
    const withBase = Math.max(0, pendingWithBase - this.holdPages);
    return withBase * (this.againBytes + RECORD_BYTES) + (pendingCount - pendingWithBase) * (PAGE_SIZE + RECORD_BYTES);
  }

  /** @returns an estimate of the bytes that one more dirtied page is likely to cost, before compression */
  bytesPerDirtyPage(): number {
    return (this.options.delta ? this.againBytes : PAGE_SIZE) + RECORD_BYTES;
  }

  /** Writes the pages that are pending as zero into the frame, as runs. */
  private fillZeros(): void {
    const { pages, writer } = this;
    let scanned = 0;
    // while the frame is empty the search goes on: the sender would take an empty frame for the end of what is pending
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

  /**
   * Takes a page out of those that are pending as zero.
   * @returns true if the page was pending as zero and the destination does not have it as zero already
   */
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

  /** Writes the page in `slot` into the frame as a delta or in full, or skips it if the destination has its content. */
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

  /** Adds the frame to the totals, and updates `againBytes` when enough pages were sent again. */
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
