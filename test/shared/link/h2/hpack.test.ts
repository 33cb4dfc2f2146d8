/**
 * Tests HPACK by the examples of RFC 7541 that need no dynamic table, and by hostile blocks. What node:http2
 * sends is in connection.test.ts.
 */
import fc from "fast-check";
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import {
  decodeHeaders,
  encodeHeaders,
  HEADER_LIST_BYTES_MAX,
  type HeaderField,
} from "../../../../shared/link/h2/hpack.ts";
import { HUFFMAN, HUFFMAN_BITS_MAX, STATIC_TABLE } from "../../../../shared/link/h2/hpack-tables.ts";

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(" ", ""), "hex");

/** The examples of RFC 7541, appendix C, whose blocks refer to the static table only. */
const EXAMPLES: readonly (readonly [section: string, block: string, fields: readonly HeaderField[]])[] = [
  ["C.2.1", "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", [["custom-key", "custom-header"]]],
  ["C.2.2", "040c 2f73 616d 706c 652f 7061 7468", [[":path", "/sample/path"]]],
  ["C.2.3", "1008 7061 7373 776f 7264 0673 6563 7265 74", [["password", "secret"]]],
  ["C.2.4", "82", [[":method", "GET"]]],
  [
    "C.3.1",
    "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      [":authority", "www.example.com"],
    ],
  ],
  [
    "C.4.1",
    "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
    [
      [":method", "GET"],
      [":scheme", "http"],
      [":path", "/"],
      [":authority", "www.example.com"],
    ],
  ],
  [
    "C.5.1",
    "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
    [
      [":status", "302"],
      ["cache-control", "private"],
      ["date", "Mon, 21 Oct 2013 20:13:21 GMT"],
      ["location", "https://www.example.com"],
    ],
  ],
  [
    "C.6.1",
    "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
    [
      [":status", "302"],
      ["cache-control", "private"],
      ["date", "Mon, 21 Oct 2013 20:13:21 GMT"],
      ["location", "https://www.example.com"],
    ],
  ],
];

t.test("the examples of RFC 7541 are read", async (t) => {
  for (const [section, block, fields] of EXAMPLES) t.same(decodeHeaders(hex(block)), fields, section);
});

t.test("the tables are whole: 61 fields, and codes that fill the space of the Huffman code", async (t) => {
  t.equal(STATIC_TABLE.length, 62);
  t.same(
    [STATIC_TABLE[8], STATIC_TABLE[28], STATIC_TABLE[61]],
    [
      [":status", "200"],
      ["content-length", ""],
      ["www-authenticate", ""],
    ],
  );
  const all = HUFFMAN.symbols.flat();
  t.equal(new Set(all).size, 257);
  let space = 0;
  for (const [bits, symbols] of HUFFMAN.symbols.entries()) space += symbols.length * 2 ** (HUFFMAN_BITS_MAX - bits);
  t.equal(space, 2 ** HUFFMAN_BITS_MAX);
});

const ascii = fc.string({
  unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)),
  maxLength: 400,
});

t.test("what is written is read again, whatever its lengths", async (t) => {
  const field = fc.tuple(fc.constantFrom(":path", "te", "x-own", "content-type"), ascii);
  fc.assert(
    fc.property(fc.array(field, { maxLength: 10 }), (fields) => {
      const read = decodeHeaders(encodeHeaders(fields));
      return JSON.stringify(read) === JSON.stringify(fields);
    }),
  );
  t.pass();
});

t.test("a block that needs a dynamic table, or is not valid, is refused by name", async (t) => {
  const refused: readonly (readonly [block: string, message: RegExp])[] = [
    ["be", /header number 62, which is not in the static table/],
    ["80", /header number 0/],
    ["7e01 61", /header number 62/],
    ["3fe11f", /a header table of 4096 bytes, where 0 were allowed/],
    ["8220", /a new size of the header table behind a header/],
    ["00", /cut short/],
    ["0005 6162", /cut short/],
    ["ff", /cut short/],
    ["ffffffffffff", /a number of more than 5 bytes/],
    ["0004 7465 7374 81 00", /ends within a symbol/],
    ["0004 7465 7374 82 ffff", /ends within a symbol/],
    ["0004 7465 7374 84 ffffffff", /the symbol that ends texts/],
  ];
  for (const [block, message] of refused)
    t.throws(() => decodeHeaders(hex(block)), { code: "peer-lost", message }, block);
  t.same(decodeHeaders(hex("2082")), [[":method", "GET"]], "a table of 0 bytes is what was announced");
  const many = Buffer.alloc(HEADER_LIST_BYTES_MAX / 42 + 1, 0x88);
  t.throws(() => decodeHeaders(many), { message: /headers of more than 65536 bytes/ });
});

t.test("no bytes make the reader do anything but read them or name what is wrong", async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (block) => {
      try {
        decodeHeaders(block);
      } catch (thrown) {
        return thrown instanceof MigrationFault;
      }
      return true;
    }),
    { numRuns: 2000 },
  );
  t.pass();
});
