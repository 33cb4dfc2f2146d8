/**
 * What is known of every page: its pending content, and the base that a delta may refer to.
 *
 *     captured ──> pending ──sent──> base ──evicted──> nothing
 *                   ^  │ newer version: coalesced, in place
 *                   └──┘
 *
 * Pending pages and bases share one region of slots: a page that was sent becomes its own base where it lies, without
 * a copy. Each kind has its own bound, so a guest that dirties much cannot take the bases' memory, nor the reverse.
 *
 * Invariant: a base is the content of the last record sent for its page, which the destination QEMU therefore holds.
 */
import { type Address, type PageIndex, pageIndex } from "../units.ts";
import { classOf, type HeatMap } from "./heat-map.ts";
import type { PageKernels } from "./kernels.ts";
import { BASE, PENDING, SlotLists } from "./slot-lists.ts";
import { ZeroQueue } from "./zero-queue.ts";

/** No slot: nothing pending, or no base. */
export const NONE = -1;
/** No slot needed: the content is all zero. */
export const ZERO = -2;

export interface PageStoreLimits {
  /** Most pending pages with content. */
  readonly pendingSlots: number;
  /** Most bases with content. */
  readonly baseSlots: number;
  /** More of what is pending, once there are no bases any more. @default 0 */
  readonly reserveSlots?: number;
}

/** That a store takes of its region. */
export const slotsOf = ({ pendingSlots, baseSlots, reserveSlots = 0 }: PageStoreLimits): number =>
  pendingSlots + baseSlots + reserveSlots;

export class PageStore {
  readonly heat: HeatMap;
  readonly zeros = new ZeroQueue();
  private readonly kernels: PageKernels;
  private readonly slots: SlotLists;
  private readonly limits: PageStoreLimits;
  private readonly pendingSlot: Int32Array;
  private readonly baseSlot: Int32Array;
  /** Order by heat; false: by arrival. */
  private readonly byHeat: boolean;
  /** Most pending pages with content. */
  private pendingSlots: number;

  /** Pages pending with content, and how many of those have a base. */
  pendingCount = 0;
  pendingWithBase = 0;
  /** Pages pending as zero. */
  zeroCount = 0;
  baseCount = 0;
  /** Pages in a hot class among the pending are held; kept here for the view only. */
  captured = 0;
  coalesced = 0;
  evicted = 0;

  /** Uses [region, region + (pendingSlots + baseSlots + reserveSlots) * 4096) of the kernels' memory. */
  constructor(
    kernels: PageKernels,
    region: Address,
    limits: PageStoreLimits,
    heat: HeatMap,
    options: PageStoreOptions,
  ) {
    this.kernels = kernels;
    this.limits = limits;
    this.heat = heat;
    this.byHeat = options.byHeat;
    this.pendingSlots = limits.pendingSlots;
    this.slots = new SlotLists(region, slotsOf(limits));
    this.pendingSlot = new Int32Array(options.pageCount).fill(NONE);
    this.baseSlot = new Int32Array(options.pageCount).fill(NONE);
  }

  /** Takes the content at `from` as the page's newest version; false, and nothing done, when there is no room. */
  capture(page: PageIndex, from: Address): boolean {
    const present = this.pendingSlot[page]!;
    if (present < 0 && this.pendingCount === this.pendingSlots) return false;
    const heatClass = this.arrive(page);
    if (present >= 0) {
      this.coalesced++;
      this.slots.move(present, PENDING, heatClass);
      this.kernels.copy(this.slots.addressOf(present), from, 4096);
      return true;
    }
    if (present === ZERO) {
      this.coalesced++;
      this.zeroCount--;
    }
    const slot = this.slots.take(PENDING, heatClass, page);
    this.kernels.copy(this.slots.addressOf(slot), from, 4096);
    this.pendingSlot[page] = slot;
    this.pendingCount++;
    if (this.baseSlot[page] !== NONE) this.pendingWithBase++;
    return true;
  }

  /** The page's newest version is all zero; false, and nothing done, when there is no room to note it. */
  captureZero(page: PageIndex): boolean {
    const present = this.pendingSlot[page]!;
    if (present === ZERO) {
      this.coalesced++;
      this.arrive(page);
      return true;
    }
    if (!this.zeros.push(page)) return false;
    this.arrive(page);
    if (present >= 0) {
      this.coalesced++;
      this.dropPending(page, present);
    }
    this.pendingSlot[page] = ZERO;
    this.zeroCount++;
    return true;
  }

  /** Pages with content that there is room for. */
  get pendingRoom(): number {
    return this.pendingSlots - this.pendingCount;
  }

  /** The pending slot to send next, coldest first and oldest first among equals; -1 when there is none. */
  coldestPending(): number {
    return this.slots.coldest(PENDING);
  }

  coldestPendingClass(): number {
    return this.slots.coldestClass(PENDING);
  }

  /** The pending slot that is hottest, oldest first among equals; -1 when there is none. */
  hottestPending(): number {
    return this.slots.hottest(PENDING);
  }

  /** Slot of the page's pending content, ZERO or NONE. */
  pendingOf(page: PageIndex): number {
    return this.pendingSlot[page]!;
  }

  isPending(page: PageIndex): boolean {
    return this.pendingSlot[page] !== NONE;
  }

  /** What is pending of the page is not to be sent. */
  drop(page: PageIndex): void {
    const present = this.pendingSlot[page]!;
    if (present === ZERO) {
      this.pendingSlot[page] = NONE;
      this.zeroCount--;
    } else if (present >= 0) this.dropPending(page, present);
  }

  /** No page has a base any more, nor gets one; their slots are free for what is pending, and those in reserve. */
  dropBases(): void {
    this.pendingSlots = slotsOf(this.limits);
    for (let slot = this.slots.coldest(BASE); slot >= 0; slot = this.slots.coldest(BASE)) this.slots.free(slot);
    this.baseSlot.fill(NONE);
    this.baseCount = 0;
    this.pendingWithBase = 0;
  }

  pageOf(slot: number): PageIndex {
    return pageIndex(this.slots.pageOf(slot));
  }

  addressOf(slot: number): Address {
    return this.slots.addressOf(slot);
  }

  /** Slot of the page's base, ZERO or NONE. */
  baseOf(page: PageIndex): number {
    return this.baseSlot[page]!;
  }

  isPendingZero(page: PageIndex): boolean {
    return this.pendingSlot[page] === ZERO;
  }

  /** The pending content equals the base: nothing to send. */
  skipPending(page: PageIndex, slot: number): void {
    this.dropPending(page, slot);
  }

  /** The pending content was sent: it becomes the base, when it is worth a slot. */
  sentContent(page: PageIndex, slot: number, keepBase: boolean): void {
    const base = this.baseSlot[page]!;
    if (base !== NONE) this.pendingWithBase--;
    if (base >= 0) {
      this.slots.free(base);
      this.baseCount--;
    }
    this.pendingSlot[page] = NONE;
    this.pendingCount--;
    const heatClass = this.classNow(page);
    if (keepBase && (base >= 0 || this.makeRoomForBase(heatClass))) {
      this.slots.move(slot, BASE, heatClass);
      this.baseSlot[page] = slot;
      this.baseCount++;
    } else {
      this.slots.free(slot);
      this.baseSlot[page] = NONE;
    }
  }

  /** A pending zero page was sent (or need not be, as the destination has zero there). */
  sentZero(page: PageIndex): void {
    this.pendingSlot[page] = NONE;
    this.zeroCount--;
    const base = this.baseSlot[page]!;
    if (base >= 0) {
      this.slots.free(base);
      this.baseCount--;
    }
    this.baseSlot[page] = ZERO;
  }

  /** One epoch of heat has passed. */
  fade(): void {
    this.heat.fade();
    if (this.byHeat) this.slots.fade();
  }

  private arrive(page: PageIndex): number {
    this.captured++;
    const heat = this.heat.arrive(page);
    return this.byHeat ? classOf(heat) : 0;
  }

  private classNow(page: PageIndex): number {
    return this.byHeat ? classOf(this.heat.of(page)) : 0;
  }

  private dropPending(page: PageIndex, slot: number): void {
    this.slots.free(slot);
    this.pendingSlot[page] = NONE;
    this.pendingCount--;
    if (this.baseSlot[page] !== NONE) this.pendingWithBase--;
  }

  /** Evicts the coldest base when the budget is used up; not for a page that is colder still. */
  private makeRoomForBase(heatClass: number): boolean {
    if (this.baseCount < this.limits.baseSlots) return true;
    const victim = this.slots.coldest(BASE);
    if (victim < 0 || this.slots.coldestClass(BASE) >= heatClass) return false;
    const page = this.pageOf(victim);
    this.slots.free(victim);
    this.baseSlot[page] = NONE;
    this.baseCount--;
    this.evicted++;
    if (this.pendingSlot[page]! >= 0) this.pendingWithBase--;
    return true;
  }
}

export interface PageStoreOptions {
  readonly pageCount: number;
  readonly byHeat: boolean;
}
