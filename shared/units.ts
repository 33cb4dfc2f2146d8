/**
 * Numbers that look alike and must not be mixed, and the operator's way of writing them.
 * The casts to brands are all here.
 */

declare const brand: unique symbol;
type Branded<Name extends string> = number & { readonly [brand]: Name };

/** A page of guest memory, counted from 0 through all RAM blocks in the order of the stream. */
export type PageIndex = Branded<"PageIndex">;
/** A place in the memory that the kernels work on (see shared/page/kernels.ts), bytes from its start. */
export type Address = Branded<"Address">;

/** Target page size of the guests that Ferry carries: x86, 4 KiB. */
export const PAGE_SIZE = 4096;
export const PAGE_SHIFT = 12;

export const pageIndex = (value: number): PageIndex => value as PageIndex;
export const address = (value: number): Address => value as Address;
