/**
 * Chooses which pages go next after post-copy's package, and encodes them. Each page goes once, in its last version, in
 * full or as zero: a delta or a second copy would break the destination's QEMU (migration/ram.c ram_load_postcopy).
 * Pure, as PrecopyScheduler is: times are passed in.
 *
 * Order: the pages for which the guest waits; zero runs, which cost next to nothing; the pages around the last page for
 * which the guest waited (Hines' bubbling: a guest that walks its memory wants the next pages soon); the hottest pages.
 *
 * Only pages that were captured are chosen here. Which pages QEMU is asked for is decided in active-push.ts.
 */
import { PageFrameWriter } from "../../shared/codec/page-frame.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { PageSet } from "../../shared/page/page-set.ts";
import { NONE, type PageStore, ZERO } from "../../shared/page/page-store.ts";
import { type Address, PAGE_SIZE, pageIndex } from "../../shared/units.ts";
import type { FrameSource } from "../send/frame-source.ts";
import { addCounts, clearCounts, type KindCounts, noCounts } from "../send/kind-counts.ts";
import { RECORD_BYTES } from "../send/precopy-scheduler.ts";
import { BEHIND_PAGES } from "./active-push.ts";
import { QuietStart } from "./quiet-start.ts";

export interface PostcopyOrder {
  readonly kernels: PageKernels;
  readonly pages: PageStore;
  /** What all frames of the migration carry, precopy's too. */
  readonly total: KindCounts;
  /** How many pages the guest has, in all RAM blocks. */
  readonly pageCount: number;
}

/**
 * The most pages in a frame of pages for which the guest waits. In a longer frame the first page would wait for the
 * last, because a frame is sent and checked as a whole.
 */
const URGENT_PAGES = 16;
/**
 * The most zero pages in a frame. This bounds the time that one call of fill() takes. Pages that were sent or dropped
 * before do not count, since each is passed over only once.
 */
const ZERO_PAGES = 16384;
/** How many pages after the last page for which the guest waited are searched for captured pages. */
const AHEAD_PAGES = 1024;

export class PostcopyScheduler implements FrameSource {
  readonly frame = noCounts();
  /** How many bytes of pages a frame may have, before compression. Set before the first frame is made. */
  frameBytes = 65536;
  /** The pages that the destination misses and that were not sent. */
  readonly missing: PageSet;
  /** One buffer stays free: a page for which the guest waits is not to wait for another frame's compression. */
  readonly reservedBuffers = 1;
  private readonly quietStart = new QuietStart();
  private readonly order: PostcopyOrder;
  private readonly writer: PageFrameWriter;
  /** The pages for which the guest waits and that are not captured yet. */
  private readonly wanted: PageSet;
  /**
   * The pages for which the guest waits and that are captured: from index `urgentAt` on, oldest request first. Each of
   * these pages is there once, and is in `isUrgent`.
   */
  private urgent: number[] = [];
  private readonly isUrgent: PageSet;
  private urgentAt = 0;
  /** The pages of [ahead, aheadEnd) lie around the last page for which the guest waited, and go before the hottest. */
  private ahead = 0;
  private aheadEnd = 0;

  constructor(order: PostcopyOrder) {
    this.order = order;
    this.missing = new PageSet(order.pageCount);
    this.wanted = new PageSet(order.pageCount);
    this.isUrgent = new PageSet(order.pageCount);
    this.writer = new PageFrameWriter(order.kernels);
  }

  get frameAt(): Address {
    return this.writer.frameAt;
  }

  get isEmpty(): boolean {
    return this.order.pages.pendingCount === 0 && this.order.pages.zeroCount === 0;
  }

  get isUnderWay(): boolean {
    return this.quietStart.isOver;
  }

  quietMs(nowMs: number): number {
    return this.quietStart.waitMs(nowMs);
  }

  get hasUrgent(): boolean {
    return this.urgentAt < this.urgent.length;
  }

  /** True while the guest waits for pages that are not captured yet. */
  get wantsMore(): boolean {
    return this.wanted.size > 0;
  }

  /**
   * Notes that the guest waits for a page. A page that was sent is on its way already, and is not sent again.
   * @returns true if QEMU must be asked for the page
   */
  request(page: number): boolean {
    this.quietStart.requested();
    this.ahead = Math.max(0, page - BEHIND_PAGES);
    this.aheadEnd = Math.min(this.order.pageCount, page + 1 + AHEAD_PAGES);
    if (!this.missing.has(page) || this.wanted.has(page)) return false;
    if (this.order.pages.pendingOf(pageIndex(page)) === NONE) return this.wanted.add(page);
    if (this.isUrgent.add(page)) this.urgent.push(page);
    return false;
  }

  /** Notes that the page has come from QEMU and is pending now. */
  captured(page: number): void {
    if (this.wanted.remove(page) && this.isUrgent.add(page)) this.urgent.push(page);
  }

  fillUrgent(at: Address): number {
    this.begin(at);
    // a page that fill() has sent meanwhile does not count, so that a frame is made if any of the pages is still
    // pending
    for (let pages = 0; pages < URGENT_PAGES && this.hasUrgent && this.writer.hasRoom; ) {
      const page = this.urgent[this.urgentAt++]!;
      this.isUrgent.remove(page);
      if (this.send(page)) pages++;
      if (this.hasUrgent) continue;
      this.urgent = [];
      this.urgentAt = 0;
    }
    return this.finish();
  }

  fill(at: Address): number {
    const { pages } = this.order;
    this.begin(at);
    this.fillZeros();
    while (this.writer.hasRoom && this.ahead < this.aheadEnd) this.sendIfPending(this.ahead++);
    while (this.writer.hasRoom && pages.pendingCount > 0) this.send(pages.pageOf(pages.hottestPending()));
    return this.finish();
  }

  private begin(at: Address): void {
    clearCounts(this.frame);
    this.writer.begin(at, this.frameBytes);
  }

  private finish(): number {
    addCounts(this.order.total, this.frame);
    return this.writer.isEmpty ? 0 : this.writer.finish();
  }

  private sendIfPending(page: number): void {
    if (this.order.pages.pendingOf(pageIndex(page)) !== NONE) this.send(page);
  }

  /** Writes a page into the frame. @returns false if the page was not pending */
  private send(page: number): boolean {
    const { pages } = this.order;
    const index = pageIndex(page);
    const slot = pages.pendingOf(index);
    if (slot === NONE) return false;
    this.missing.remove(page);
    if (slot === ZERO) {
      this.writer.zeroRun(page, 1);
      this.countZeros(1);
      pages.sentZero(index);
      return true;
    }
    this.writer.full(page, pages.addressOf(slot));
    this.frame.fullPages++;
    this.frame.fullBytes += PAGE_SIZE + RECORD_BYTES;
    pages.sentContent(index, slot, false);
    return true;
  }

  /** Writes the pages that are pending as zero into the frame, as runs. */
  private fillZeros(): void {
    const { pages } = this.order;
    // pages that are passed over do not count: the sender would take a frame without pages for the end of what is
    // pending
    let sent = 0;
    while (!pages.zeros.isEmpty && this.writer.hasRoom && sent < ZERO_PAGES) {
      const first = pages.zeros.frontPage;
      const length = Math.min(pages.zeros.frontLength, ZERO_PAGES - sent);
      // a page that was sent on request, or dropped, splits a run
      let run = 0;
      while (run < length && pages.isPendingZero(pageIndex(first + run))) {
        pages.sentZero(pageIndex(first + run));
        run++;
      }
      if (run > 0) {
        sent += run;
        this.missing.removeRange(first, run);
        this.writer.zeroRun(first, run);
        this.countZeros(run);
      }
      pages.zeros.advance(run < length ? run + 1 : run);
    }
  }

  private countZeros(run: number): void {
    this.frame.zeroPages += run;
    this.frame.zeroBytes += RECORD_BYTES;
  }
}
