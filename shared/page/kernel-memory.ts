/** The memory that the page kernels work on: which part of it they keep for themselves, and how large it can be. */

/**
 * Bytes at the start of the memory that belong to the kernels: the compiler may put constants there, and no page is
 * ever at address 0. Callers place nothing below this address.
 */
export const KERNEL_RESERVED_BYTES = 65536;

/** Bytes of the pieces that a WebAssembly memory is made of. */
export const WASM_PAGE_BYTES = 65536;

/** The largest memory, bytes: 4 GiB less one piece, so that the end of the memory is still a 32-bit address. */
export const KERNEL_MEMORY_BYTES_MAX = 2 ** 32 - WASM_PAGE_BYTES;

/** @throws RangeError when no memory can have this length, or when nothing would be left beside the reserved part */
export function checkMemoryLength(byteLength: number): void {
  if (!Number.isInteger(byteLength) || byteLength <= KERNEL_RESERVED_BYTES || byteLength > KERNEL_MEMORY_BYTES_MAX)
    throw new RangeError(
      `${byteLength} bytes of kernel memory: more than ${KERNEL_RESERVED_BYTES} and at most ${KERNEL_MEMORY_BYTES_MAX}`,
    );
}
