/**
 * Which pages go next once the guest runs at the destination. Each goes once, in its last version, full or zero: a
 * delta or a second copy would break the destination's QEMU (migration/ram.c ram_load_postcopy). Pure, as the other
 * scheduler.
 *
 * Order: the pages that the guest waits for; zero runs, which cost nothing; then the active push: the pages that follow
 * the last one that was waited for (Hines' bubbling), as a guest that walks its memory will want them next; then the
 * hottest.
 */
import { PageFrameWriter } from "../../shared/codec/page-frame.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { PageSet } from "../../shared/page/page-set.ts";
import { NONE, type PageStore, ZERO } from "../../shared/page/page-store.ts";
import { type Address, PAGE_SIZE, pageIndex } from "../../shared/units.ts";
import type { FrameSource } from "../send/frame-source.ts";
import { addCounts, clearCounts, type KindCounts, noCounts } from "../send/kind-counts.ts";
import { BEHIND_PAGES } from "./active-push.ts";
import { QuietStart } from "./quiet-start.ts";

export interface PostcopyOrder {
  readonly kernels: PageKernels;
  readonly pages: PageStore;
  /** Of the whole migration, counted on. */
  readonly total: KindCounts;
  readonly pageCount: number;
}

/** Pages of a frame that somebody waits for: the first is not to wait for the last. */
const URGENT_PAGES = 16;
/** Zero pages of a frame: bounds the time that one call takes; one that is passed over is never looked at again. */
const ZERO_PAGES = 16384;
const RECORD_BYTES = 3;
/** Looked at behind the last page that was waited for; what is not here yet is asked for by active-push.ts. */
const AHEAD_PAGES = 1024;

export class PostcopyScheduler implements FrameSource {
  readonly frame = noCounts();
  /** Of a frame, before compression; set before the first. */
  frameBytes = 65536;
  /** What the destination misses and was not sent. */
  readonly missing: PageSet;
  /** One buffer stays free: a page for which the guest waits is not to wait for another frame's compression. */
  readonly reservedBuffers = 1;
  private readonly quietStart = new QuietStart();
  private readonly order: PostcopyOrder;
  private readonly writer: PageFrameWriter;
  /** Pages that were asked for and are not captured yet. */
  private readonly wanted: PageSet;
  /**
   * Pages that were asked for and are here, oldest first, from `urgentAt` on. Each is in it once, and in `isUrgent`.
   */
  private urgent: number[] = [];
  private readonly isUrgent: PageSet;
  private urgentAt = 0;
  private ahead = 0;
  private aheadEnd = 0;

  constructor(order: PostcopyOrder) {
    this.order = order;
    this.missing = new PageSet(order.pageCount);
    this.wanted = new PageSet(order.pageCount);
    this.isUrgent = new PageSet(order.pageCount);
    this.writer = new PageFrameWriter(order.kernels);
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

  /** Somebody waits for pages that were not captured yet. */
  get wantsMore(): boolean {
    return this.wanted.size > 0;
  }

  /**
   * The guest waits for a page; one that was sent is on its way.
   * @returns must it be asked of QEMU?
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

  /** The page came from QEMU, and is pending now. */
  captured(page: number): void {
    if (this.wanted.remove(page) && this.isUrgent.add(page)) this.urgent.push(page);
  }

  fillUrgent(at: Address): number {
    this.begin(at);
    // what was sent otherwise meanwhile does not count: a frame is made as long as there is one to wait for
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

  /** @returns was it pending? */
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

  private fillZeros(): void {
    const { pages } = this.order;
    // pages that are passed over do not count: a frame without any would be the last, with others behind it
    let sent = 0;
    while (!pages.zeros.isEmpty && this.writer.hasRoom && sent < ZERO_PAGES) {
      const first = pages.zeros.frontPage;
      const length = Math.min(pages.zeros.frontLength, ZERO_PAGES - sent);
      // what was sent on request, or dropped, splits a run
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
