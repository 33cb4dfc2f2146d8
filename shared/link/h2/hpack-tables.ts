/**
 * The tables of HPACK that never change: the static table (RFC 7541, appendix A) and the Huffman code (appendix B).
 * How fields are read and written with them is in hpack.ts.
 */

/** The static table, whose first entry has the number 1. The index 0 here is not used. */
export const STATIC_TABLE: readonly (readonly [name: string, value: string])[] = [
  ["", ""],
  [":authority", ""],
  [":method", "GET"],
  [":method", "POST"],
  [":path", "/"],
  [":path", "/index.html"],
  [":scheme", "http"],
  [":scheme", "https"],
  ...["200", "204", "206", "304", "400", "404", "500"].map((status) => [":status", status] as const),
  ["accept-charset", ""],
  ["accept-encoding", "gzip, deflate"],
  ...named("accept-language accept-ranges accept access-control-allow-origin age allow authorization cache-control"),
  ...named("content-disposition content-encoding content-language content-length content-location content-range"),
  ...named("content-type cookie date etag expect expires from host if-match if-modified-since if-none-match if-range"),
  ...named("if-unmodified-since last-modified link location max-forwards proxy-authenticate proxy-authorization"),
  ...named("range referer refresh retry-after server set-cookie strict-transport-security transfer-encoding"),
  ...named("user-agent vary via www-authenticate"),
];

function named(names: string): readonly (readonly [name: string, value: string])[] {
  return names.split(" ").map((name) => [name, ""]);
}

/** The longest code of the Huffman code, bits. */
export const HUFFMAN_BITS_MAX = 30;
/** The symbol that ends a string in the Huffman code. It never stands in a string. */
export const HUFFMAN_END = 256;

/**
 * The lengths of the codes of the 257 symbols, bits. Codes of one length follow each other in the order of their
 * symbols, and shorter codes come before longer ones, so the lengths alone tell every code.
 */
const LENGTHS: readonly number[] = [
  ...[13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28],
  ...[28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15],
  ...[6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6],
  ...[15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28],
  ...[20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23],
  ...[22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23],
  ...[20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27],
  ...[27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23],
  ...[26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30],
];

/** The Huffman code in the form in which it is read: for each length, the first code and the symbols in their order. */
interface HuffmanLengths {
  /** The first code of each length; the index is the length. */
  readonly firstCodes: readonly number[];
  /** The symbols whose codes have this length; the index is the length. */
  readonly symbols: readonly (readonly number[])[];
}

function byLength(): HuffmanLengths {
  const symbols: number[][] = Array.from({ length: HUFFMAN_BITS_MAX + 1 }, () => []);
  for (const [symbol, bits] of LENGTHS.entries()) symbols[bits]?.push(symbol);
  const firstCodes = [0];
  for (let bits = 1; bits <= HUFFMAN_BITS_MAX; bits++)
    firstCodes.push(((firstCodes[bits - 1] ?? 0) + (symbols[bits - 1]?.length ?? 0)) * 2);
  return { firstCodes, symbols };
}

export const HUFFMAN: HuffmanLengths = byLength();
