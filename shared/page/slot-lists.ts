/**
 * Slots of 4 KiB in one region of memory. Each slot is free or in one list. There is one list for each group (PENDING
 * and BASE) and heat class.
 *
 * The links are typed arrays, and a list is a ring through its sentinel, so moving a slot is a few stores and makes no
 * garbage. Fading moves every slot down by one class: it renames the lists and touches no slot:
 *
 *     class       0        1        2      …      8
 *     before    [a b]    [c]      [d e]          [f]
 *     after     [a b c]  [d e]     …      [f]    []        (c is appended to 0; 2 becomes 1; …)
 *
 * This is right because heat-map.ts halves the heat of every page at the same moment, and a class goes by the binary
 * logarithm of heat.
 */
import { type Address, address, PAGE_SIZE } from "../units.ts";
import { HEAT_CLASSES } from "./heat-map.ts";

/** The group of a slot whose content was not sent yet. */
export const PENDING = 0;
/** The group of a slot whose content is the last that was sent of its page. */
export const BASE = 1;
export type Group = typeof PENDING | typeof BASE;
const GROUPS = 2;

export class SlotLists {
  readonly slotCount: number;
  private readonly start: number;
  private readonly next: Int32Array;
  private readonly prev: Int32Array;
  /** The page whose content is in each slot. */
  private readonly page: Int32Array;
  /** The sentinel of each list, by group and class. fade() gives sentinels to other classes. */
  private readonly sentinels: Int32Array;
  private freeHead = -1;
  /** How many slots were ever taken. These are the lowest ones. */
  used = 0;

  /** Lays the slots in [start, start + slotCount * 4096); all of them are free. */
  constructor(start: Address, slotCount: number) {
    this.slotCount = slotCount;
    this.start = start;
    const nodes = slotCount + GROUPS * HEAT_CLASSES;
    this.next = new Int32Array(nodes);
    this.prev = new Int32Array(nodes);
    this.page = new Int32Array(slotCount);
    this.sentinels = new Int32Array(GROUPS * HEAT_CLASSES);
    for (let i = 0; i < this.sentinels.length; i++) {
      const sentinel = slotCount + i;
      this.sentinels[i] = sentinel;
      this.next[sentinel] = sentinel;
      this.prev[sentinel] = sentinel;
    }
    // the lowest slot is taken first, so that memory which is never needed is never touched
    for (let slot = slotCount - 1; slot >= 0; slot--) {
      this.next[slot] = this.freeHead;
      this.freeHead = slot;
    }
  }

  addressOf(slot: number): Address {
    return address(this.start + slot * PAGE_SIZE);
  }

  pageOf(slot: number): number {
    return this.page[slot]!;
  }

  /** Takes a free slot for a page and appends it to a list. @returns -1 when no slot is free */
  take(group: Group, heatClass: number, page: number): number {
    const slot = this.freeHead;
    if (slot < 0) return -1;
    this.freeHead = this.next[slot]!;
    if (slot >= this.used) this.used = slot + 1;
    this.page[slot] = page;
    this.append(slot, group, heatClass);
    return slot;
  }

  /** Moves a slot to the end of another list. */
  move(slot: number, group: Group, heatClass: number): void {
    this.unlink(slot);
    this.append(slot, group, heatClass);
  }

  free(slot: number): void {
    this.unlink(slot);
    this.next[slot] = this.freeHead;
    this.freeHead = slot;
  }

  /** The oldest slot of the coldest list in [fromClass, HEAT_CLASSES) that is not empty; -1 when all are. */
  coldest(group: Group, fromClass = 0): number {
    for (let heatClass = fromClass; heatClass < HEAT_CLASSES; heatClass++) {
      const sentinel = this.sentinels[group * HEAT_CLASSES + heatClass]!;
      const first = this.next[sentinel]!;
      if (first !== sentinel) return first;
    }
    return -1;
  }

  /** The oldest slot of the hottest list that is not empty; -1 when all are. */
  hottest(group: Group): number {
    for (let heatClass = HEAT_CLASSES - 1; heatClass >= 0; heatClass--) {
      const sentinel = this.sentinels[group * HEAT_CLASSES + heatClass]!;
      const first = this.next[sentinel]!;
      if (first !== sentinel) return first;
    }
    return -1;
  }

  /** The class of the coldest slot of a group; HEAT_CLASSES when the group is empty. */
  coldestClass(group: Group): number {
    for (let heatClass = 0; heatClass < HEAT_CLASSES; heatClass++) {
      const sentinel = this.sentinels[group * HEAT_CLASSES + heatClass]!;
      if (this.next[sentinel] !== sentinel) return heatClass;
    }
    return HEAT_CLASSES;
  }

  /** Makes every slot one class colder; the coldest stay where they are. */
  fade(): void {
    for (let group = 0; group < GROUPS; group++) {
      const at = group * HEAT_CLASSES;
      const coldest = this.sentinels[at]!;
      const merged = this.sentinels[at + 1]!;
      this.appendAll(merged, coldest);
      this.sentinels.copyWithin(at + 1, at + 2, at + HEAT_CLASSES);
      this.sentinels[at + HEAT_CLASSES - 1] = merged;
    }
  }

  private append(slot: number, group: Group, heatClass: number): void {
    const sentinel = this.sentinels[group * HEAT_CLASSES + heatClass]!;
    const last = this.prev[sentinel]!;
    this.next[last] = slot;
    this.prev[slot] = last;
    this.next[slot] = sentinel;
    this.prev[sentinel] = slot;
  }

  private unlink(slot: number): void {
    const before = this.prev[slot]!;
    const after = this.next[slot]!;
    this.next[before] = after;
    this.prev[after] = before;
  }

  /** Moves all slots of one list to the end of another; `from` and `to` are the sentinels of the two. */
  private appendAll(from: number, to: number): void {
    const first = this.next[from]!;
    if (first === from) return;
    const last = this.prev[from]!;
    const tail = this.prev[to]!;
    this.next[tail] = first;
    this.prev[first] = tail;
    this.next[last] = to;
    this.prev[to] = last;
    this.next[from] = from;
    this.prev[from] = from;
  }
}
