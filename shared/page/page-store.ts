/**
 * What the source knows of every page: its pending content, and the base to which a delta may refer.
 *
 *     captured ──> pending ──sent──> base ──evicted──> nothing
 *                   ^  │ newer version: coalesced, in place
 *                   └──┘
 *
 * Pending pages and bases share one region of slots: a page that was sent becomes its own base where it lies, without a
 * copy. Each of the two has a bound of its own, so a guest that dirties many pages cannot take the memory of the bases,
 * and the bases cannot take that of the pending pages.
 *
 * Invariant: a base is the content of the last record that was sent for its page, so the destination QEMU holds it too.
 * Not decided here: which page is sent next, and in which form (agent-source/send/precopy-scheduler.ts).
 */
import { type Address, type PageIndex, pageIndex } from "../units.ts";
import { classOf, type HeatMap } from "./heat-map.ts";
import type { PageKernels } from "./kernels.ts";
import { BASE, PENDING, SlotLists } from "./slot-lists.ts";
import { ZeroQueue } from "./zero-queue.ts";

/** Stands in place of the number of a slot where no content is pending, or where there is no base. */
export const NONE = -1;
/** Stands in place of the number of a slot where the content is all zero and needs no slot. */
export const ZERO = -2;

export interface PageStoreLimits {
  /** The most pending pages with content (the arena). Zero pages do not count. */
  readonly pendingSlots: number;
  /** The most bases with content. */
  readonly baseSlots: number;
  /** Slots for pending pages that dropBases() makes available, beside the slots of the bases. @default 0 */
  readonly reserveSlots?: number;
}

/** How many slots a store takes of its region. */
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
  /** True when pages are ordered by heat, false when they are ordered by arrival. */
  private readonly byHeat: boolean;
  /** The most pending pages with content; dropBases() raises it. */
  private pendingSlots: number;

  /** How many pages are pending with content. */
  pendingCount = 0;
  /** How many of the pages that are pending with content have a base. */
  pendingWithBase = 0;
  /** How many pages are pending as zero. */
  zeroCount = 0;
  /** How many bases have content; a base that is all zero does not count. */
  baseCount = 0;
  /** How many pages were captured so far; a page that came several times counts each time. */
  captured = 0;
  /** How many pending versions were replaced by a later version so far. */
  coalesced = 0;
  /** How many bases were given up so far to make room for a hotter one. */
  evicted = 0;

  /** Uses [region, region + slotsOf(limits) * 4096) of the kernels' memory. */
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

  /**
   * Takes the content at `from` as the page's newest version.
   * @returns false when there was no room, and nothing was done
   */
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

  /**
   * Notes that the newest version of the page is all zero.
   * @returns false when there was no room to note it, and nothing was done
   */
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

  /** The end of the memory that the store has written to so far. */
  get usedEnd(): Address {
    return this.slots.addressOf(this.slots.used);
  }

  /** How many more pages with content may become pending. */
  get pendingRoom(): number {
    return this.pendingSlots - this.pendingCount;
  }

  /** The slot of the coldest pending page, of equally cold ones the oldest; -1 when there is none. */
  coldestPending(): number {
    return this.slots.coldest(PENDING);
  }

  /** The heat class of the coldest pending page; HEAT_CLASSES when there is none. */
  coldestPendingClass(): number {
    return this.slots.coldestClass(PENDING);
  }

  /** The slot of the hottest pending page, of equally hot ones the oldest; -1 when there is none. */
  hottestPending(): number {
    return this.slots.hottest(PENDING);
  }

  /** The slot of the page's pending content, or ZERO or NONE. */
  pendingOf(page: PageIndex): number {
    return this.pendingSlot[page]!;
  }

  isPending(page: PageIndex): boolean {
    return this.pendingSlot[page] !== NONE;
  }

  /** Forgets the pending version of the page, which is not to be sent any more. */
  drop(page: PageIndex): void {
    const present = this.pendingSlot[page]!;
    if (present === ZERO) {
      this.pendingSlot[page] = NONE;
      this.zeroCount--;
    } else if (present >= 0) this.dropPending(page, present);
  }

  /**
   * Forgets all bases. Their slots, and those of the reserve, are now for pending pages, so the caller must keep no
   * base after this (sentContent() with `keepBase` false).
   */
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

  /** The slot of the page's base, or ZERO or NONE. */
  baseOf(page: PageIndex): number {
    return this.baseSlot[page]!;
  }

  isPendingZero(page: PageIndex): boolean {
    return this.pendingSlot[page] === ZERO;
  }

  /** Forgets pending content that equals its base, so that nothing has to be sent. */
  skipPending(page: PageIndex, slot: number): void {
    this.dropPending(page, slot);
  }

  /** Notes that the pending content was sent. With `keepBase` it becomes the page's base if there is a slot for it. */
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

  /** Notes that a pending zero page was sent, or need not be sent since the destination has zero there. */
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

  /** Begins the next epoch of heat. */
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

  /**
   * Makes room for a base of this class. If the store has as many bases as it may have, the coldest base is given up,
   * but only if its class is colder than this class.
   * @returns true when there is room for one more base
   */
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
