/**
 * The page kernels as plain TypeScript. The SIMD kernels have to agree with them byte for byte. They are slow, above
 * all the checksum, so the agents do not use them.
 */

import { checkMemoryLength } from "../../shared/page/kernel-memory.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { type Address, PAGE_SIZE } from "../../shared/units.ts";
import { xxh64 } from "./xxh64.ts";

export class PlainKernels implements PageKernels {
  readonly memory: Uint8Array;
  private readonly view: DataView;

  /**
   * @param byteLength length of the memory, including the reserved part (kernel-memory.ts)
   * @throws RangeError as createWasmKernels() does
   */
  constructor(byteLength: number) {
    checkMemoryLength(byteLength);
    this.memory = new Uint8Array(new SharedArrayBuffer(byteLength)); // shared as the SIMD twin's is, for threads
    this.view = new DataView(this.memory.buffer);
  }

  isZero(page: Address): boolean {
    for (let at: number = page; at < page + PAGE_SIZE; at++) if (this.memory[at] !== 0) return false;
    return true;
  }

  equal(a: Address, b: Address): boolean {
    for (let offset = 0; offset < PAGE_SIZE; offset++)
      if (this.memory[a + offset] !== this.memory[b + offset]) return false;
    return true;
  }

  copy(to: Address, from: Address, length: number): void {
    this.memory.copyWithin(to, from, from + length);
  }

  encodeDelta(base: Address, current: Address, out: Address, limit: number): number {
    const end = out + Math.min(limit, PAGE_SIZE); // QEMU takes no delta that is longer than a page
    let to: number = out;
    let offset = 0;
    while (offset < PAGE_SIZE) {
      const equals = this.runLength(base, current, offset, true);
      const news = this.runLength(base, current, offset + equals, false);
      if (news === 0) break; // the rest of the page is equal: QEMU leaves that run out
      if (to + countLength(equals) + countLength(news) + news > end) return -1;
      to = this.writeCount(to, equals);
      to = this.writeCount(to, news);
      const from = current + offset + equals;
      this.memory.copyWithin(to, from, from + news);
      to += news;
      offset += equals + news;
    }
    return to - out;
  }

  decodeDelta(page: Address, delta: Address, length: number): number {
    return this.walkDelta(delta, length, (offset, from, count) => {
      this.memory.copyWithin(page + offset, from, from + count);
    });
  }

  deltaIsValid(delta: Address, length: number): boolean {
    return length !== 0 && this.walkDelta(delta, length, () => {}) >= 0;
  }

  checksum(from: Address, length: number, out: Address): void {
    this.view.setBigUint64(out, xxh64(this.view, from, length), true);
  }

  /** Counts the bytes from `offset` on that are all equal, or all different, in the two pages. */
  private runLength(base: number, current: number, offset: number, equal: boolean): number {
    let end = offset;
    while (end < PAGE_SIZE && (this.memory[base + end] === this.memory[current + end]) === equal) end++;
    return end - offset;
  }

  private writeCount(to: number, count: number): number {
    if (count < 0x80) {
      this.memory[to] = count;
      return to + 1;
    }
    this.memory[to] = (count & 0x7f) | 0x80;
    this.memory[to + 1] = count >> 7;
    return to + 2;
  }

  /** Reads the count at `at`: 14 bits in one or two bytes. @returns -1 when the second byte asks for a third one */
  private readCount(at: number): number {
    const low = this.view.getUint8(at);
    if (low < 0x80) return low;
    const high = this.view.getUint8(at + 1);
    return high < 0x80 ? (low & 0x7f) | (high << 7) : -1;
  }

  /**
   * Goes through a delta by QEMU's rules and calls `run` for each run of new bytes. A count may be written longer than
   * it needs to be; its first byte tells how many bytes it has.
   * @returns how many bytes of the page the delta covers; -1 when the delta is not valid
   */
  private walkDelta(delta: number, length: number, run: (offset: number, from: number, count: number) => void): number {
    if (length < 0 || length > PAGE_SIZE) return -1;
    const end = delta + length;
    let at = delta;
    let covered = 0;
    while (at < end) {
      if (end - at < 2) return -1;
      const equals = this.readCount(at);
      if (equals < 0 || (equals === 0 && at !== delta)) return -1;
      at += this.countBytes(at);
      covered += equals;
      if (covered > PAGE_SIZE || end - at < 2) return -1;
      const news = this.readCount(at);
      if (news <= 0) return -1;
      at += this.countBytes(at);
      if (covered + news > PAGE_SIZE || news > end - at) return -1;
      run(covered, at, news);
      covered += news;
      at += news;
    }
    return covered;
  }

  private countBytes(at: number): number {
    return this.view.getUint8(at) < 0x80 ? 1 : 2;
  }
}

function countLength(count: number): number {
  return count < 0x80 ? 1 : 2;
}
