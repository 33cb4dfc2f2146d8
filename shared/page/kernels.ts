/**
 * The page kernels: what is done to every page, on one flat memory. Two twins implement them: the plain one
 * (plain-kernels.ts, easy to read) and the SIMD one (wasm-kernels.ts, made from kernels.as.ts). Property tests hold them equal.
 *
 * All places are addresses in `memory`, so that no object is made for a page.
 */
import type { Address } from "../units.ts";

export interface PageKernels {
  /** The memory that all addresses refer to. It never grows: growing would detach every view. */
  readonly memory: Uint8Array;
  /** Is the page of 4096 bytes at `page` all zero? */
  isZero(page: Address): boolean;
  /** Are the two pages of 4096 bytes equal? */
  equal(a: Address, b: Address): boolean;
  /** Copies `length` bytes; the ranges may overlap. */
  copy(to: Address, from: Address, length: number): void;
  /**
   * Writes the XBZRLE encoding of the page at `current` relative to `base` to `out`, at most `limit` bytes.
   * @returns its length; 0 when the pages are equal; -1 when it would be longer than `limit`
   * (source: QEMU migration/xbzrle.c, xbzrle_encode_buffer)
   */
  encodeDelta(base: Address, current: Address, out: Address, limit: number): number;
  /**
   * Applies `length` bytes of XBZRLE at `delta` to the page at `page`, in place.
   * @returns the length of the page that the encoding covers, or -1 when it is not valid; the page may then be half written
   * (source: QEMU migration/xbzrle.c, xbzrle_decode_buffer)
   */
  decodeDelta(page: Address, delta: Address, length: number): number;
  /** Is this XBZRLE that QEMU accepts for a page of 4096 bytes? Reads `length` bytes at `delta`, writes nothing. */
  deltaIsValid(delta: Address, length: number): boolean;
  /** XXH64 with seed 0 of `length` bytes; 8 bytes, little endian, are written to `out`. */
  checksum(from: Address, length: number, out: Address): void;
}
