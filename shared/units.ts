/**
 * Types for numbers that look alike and must not be mixed, and the size of a page. All casts to these types are in this
 * file. How an operator writes numbers with units is not here but in quantities.ts.
 */

declare const brand: unique symbol;
type Branded<Name extends string> = number & { readonly [brand]: Name };

/**
 * The number of a page of guest memory, counted from 0 through all RAM blocks, in the order in which QEMU's migration
 * stream lists the blocks.
 */
export type PageIndex = Branded<"PageIndex">;
/** A place in the memory that the page kernels work on (shared/page/kernels.ts), in bytes from the memory's start. */
export type Address = Branded<"Address">;

/** Bytes of a guest page (QEMU's target page). Ferry carries x86 guests, whose pages have 4 KiB. */
export const PAGE_SIZE = 4096;
export const PAGE_SHIFT = 12;
/** The most RAM blocks that the agents accept in a guest. QEMU's machines have tens of them. */
export const RAM_BLOCKS_MAX = 4096;

export const pageIndex = (value: number): PageIndex => value as PageIndex;
export const address = (value: number): Address => value as Address;
