/**
 * The page kernels: the operations that are done to every page, on one flat memory. The agents use wasm-kernels.ts,
 * made from kernels.as.ts with SIMD. Property tests hold it equal to a plain implementation, which is easy to read
 * (test/support/plain-kernels.ts).
 *
 * All places are addresses in `memory`, so that no object is made for a page.
 */
import type { Address } from "../units.ts";

export interface PageKernels {
  /** The memory that all addresses refer to. It never grows: existing views of it would not reach the added part. */
  readonly memory: Uint8Array;
  /** True when the page of 4096 bytes at `page` is all zero. */
  isZero(page: Address): boolean;
  /** True when the two pages of 4096 bytes are equal. */
  equal(a: Address, b: Address): boolean;
  /** Copies `length` bytes; the ranges may overlap. */
  copy(to: Address, from: Address, length: number): void;
  /**
   * Writes to `out` the XBZRLE encoding of the page at `current` relative to the page at `base`. The encoding has at
   * most `limit` bytes, and never more than a page (QEMU migration/xbzrle.c, xbzrle_encode_buffer).
   * @returns the length of the encoding; 0 when the pages are equal; -1 when the encoding would be longer than that
   */
  encodeDelta(base: Address, current: Address, out: Address, limit: number): number;
  /**
   * Applies `length` bytes of XBZRLE at `delta` to the page at `page`, in place (QEMU migration/xbzrle.c,
   * xbzrle_decode_buffer).
   * @returns how many bytes of the page the encoding covers; -1 when the encoding is not valid, and the page may then
   *   be half written
   */
  decodeDelta(page: Address, delta: Address, length: number): number;
  /** True when the `length` bytes at `delta` are XBZRLE that QEMU accepts for a page of 4096 bytes. Writes nothing. */
  deltaIsValid(delta: Address, length: number): boolean;
  /** Writes XXH64, with seed 0, of the `length` bytes at `from` to `out`: 8 bytes, little endian. */
  checksum(from: Address, length: number, out: Address): void;
}
