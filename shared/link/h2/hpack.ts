/**
 * HPACK, the header compression of HTTP/2 (RFC 7541), without a dynamic table: this client announces one of 0 bytes,
 * so a peer can refer to the static table only (docs/decisions/0094-receive-http2-by-hand.md). This client writes
 * entries of the static table, and literals that no peer puts into a table.
 *
 * Everything that is read is bounded by the length of the block, which the caller bounds, and by HEADER_LIST_BYTES_MAX.
 */
import { HUFFMAN, HUFFMAN_BITS_MAX, HUFFMAN_END, STATIC_TABLE } from "./hpack-tables.ts";
import { ERROR, NotUnderstood } from "./not-understood.ts";

/**
 * The most that a list of headers may take, bytes, counted as HTTP/2 counts: each field has 32 bytes beside its name
 * and value. An agent's trailers fit into it (shared/link/wire/status.ts).
 */
export const HEADER_LIST_BYTES_MAX = 64 << 10;
const FIELD_BYTES = 32;
/** The most bytes that a number may take after its first one; four bytes reach beyond every length that is allowed. */
const NUMBER_BYTES_MAX = 4;

/** A header field. The value has one character for each byte. */
export type HeaderField = readonly [name: string, value: string];

/**
 * Reads a whole header block.
 * @throws NotUnderstood for a block that is not valid, is too long, or needs a dynamic table
 */
export function decodeHeaders(block: Uint8Array): readonly HeaderField[] {
  const reader = new BlockReader(block);
  const fields: HeaderField[] = [];
  let bytes = 0;
  while (!reader.atEnd) {
    const field = reader.field(fields.length === 0);
    if (field === undefined) continue;
    bytes += field[0].length + field[1].length + FIELD_BYTES;
    if (bytes > HEADER_LIST_BYTES_MAX) throw new NotUnderstood(`headers of more than ${HEADER_LIST_BYTES_MAX} bytes`);
    fields.push(field);
  }
  return fields;
}

/** Writes a header block. The characters of names and values must be ASCII. */
export function encodeHeaders(fields: readonly HeaderField[]): Buffer {
  return Buffer.concat(fields.flatMap(encodeField));
}

function encodeField([name, value]: HeaderField): Buffer[] {
  const whole = STATIC_TABLE.findIndex((entry) => entry[0] === name && entry[1] === value && value !== "");
  if (whole > 0) return [encodeNumber(whole, 7, 0x80)];
  const index = STATIC_TABLE.findIndex((entry) => entry[0] === name);
  const head = encodeNumber(Math.max(0, index), 4, 0);
  return index > 0 ? [head, ...encodeText(value)] : [head, ...encodeText(name), ...encodeText(value)];
}

function encodeText(text: string): Buffer[] {
  const bytes = Buffer.from(text, "latin1");
  return [encodeNumber(bytes.length, 7, 0), bytes];
}

/**
 * Writes a number into the last `bits` bits of a first byte, whose other bits are those of `form`, and into further
 * bytes if it is too large for that.
 */
function encodeNumber(value: number, bits: number, form: number): Buffer {
  const most = (1 << bits) - 1;
  if (value < most) return Buffer.of(form | value);
  const bytes = [form | most];
  let rest = value - most;
  for (; rest > 127; rest >>>= 7) bytes.push((rest & 127) | 128);
  return Buffer.from([...bytes, rest]);
}

class BlockReader {
  private readonly block: Uint8Array;
  private at = 0;

  constructor(block: Uint8Array) {
    this.block = block;
  }

  get atEnd(): boolean {
    return this.at >= this.block.length;
  }

  /**
   * Reads the next field.
   * @param isFirst true while no field of the block was read: only there may the size of the table change
   * @returns undefined for a change of the table's size to 0
   */
  field(isFirst: boolean): HeaderField | undefined {
    const first = this.block[this.at]!;
    if (first >= 0x80) return this.indexed(this.number(7));
    // a field that is to go into the table leaves a table of 0 bytes empty
    if (first >= 0x40) return this.literal(this.number(6));
    if (first < 0x20) return this.literal(this.number(4));
    const size = this.number(5);
    if (size > 0) throw compression(`a header table of ${size} bytes, where 0 were allowed`);
    if (!isFirst) throw compression("a new size of the header table behind a header");
    return undefined;
  }

  private indexed(index: number): HeaderField {
    const entry = index === 0 ? undefined : STATIC_TABLE[index];
    if (entry === undefined) throw compression(`the header number ${index}, which is not in the static table`);
    return entry;
  }

  private literal(index: number): HeaderField {
    const name = index === 0 ? this.text() : this.indexed(index)[0];
    return [name, this.text()];
  }

  /** Reads a number that begins in the last `bits` bits of the next byte. */
  private number(bits: number): number {
    const most = (1 << bits) - 1;
    let value = this.byte() & most;
    if (value < most) return value;
    for (let i = 0; i < NUMBER_BYTES_MAX; i++) {
      const byte = this.byte();
      value += (byte & 127) * 128 ** i;
      if (byte < 128) return value;
    }
    throw compression(`a number of more than ${NUMBER_BYTES_MAX + 1} bytes in its headers`);
  }

  private byte(): number {
    const byte = this.block[this.at++];
    if (byte === undefined) throw compression("headers that are cut short");
    return byte;
  }

  private text(): string {
    const isHuffman = (this.block[this.at] ?? 0) >= 0x80;
    const length = this.number(7);
    const from = this.at;
    if (length > this.block.length - from) throw compression("headers that are cut short");
    this.at += length;
    const bytes = this.block.subarray(from, this.at);
    return Buffer.from(isHuffman ? unpack(bytes) : bytes).toString("latin1");
  }
}

/** Decodes a string in the Huffman code, of which each symbol takes 5 bits at least. */
function unpack(packed: Uint8Array): number[] {
  const { firstCodes, symbols } = HUFFMAN;
  const bytes: number[] = [];
  let code = 0;
  let bits = 0;
  for (const byte of packed)
    for (let mask = 0x80; mask > 0; mask >>= 1) {
      code = code * 2 + ((byte & mask) === 0 ? 0 : 1);
      bits++;
      const symbol = symbols[bits]?.[code - (firstCodes[bits] ?? 0)];
      if (symbol === HUFFMAN_END || (symbol === undefined && bits >= HUFFMAN_BITS_MAX))
        throw compression("a text with the symbol that ends texts");
      if (symbol === undefined) continue;
      bytes.push(symbol);
      code = 0;
      bits = 0;
    }
  // the last byte is filled up with ones, which are the beginning of the symbol that ends texts
  if (bits > 7 || code !== 2 ** bits - 1) throw compression("a text that ends within a symbol");
  return bytes;
}

const compression = (what: string): NotUnderstood => new NotUnderstood(what, ERROR.compression);
