/** Tests what every implementation of PageKernels has to do. The same suite runs against each of the twins. */
import type t from "tap";
import { KERNEL_RESERVED_BYTES } from "../../shared/page/kernel-memory.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { address, PAGE_SIZE } from "../../shared/units.ts";

type Test = typeof t;

/** The memory that the suite needs, bytes. */
export const SUITE_BYTES = KERNEL_RESERVED_BYTES + 16 * PAGE_SIZE;

const BASE = address(KERNEL_RESERVED_BYTES);
const CURRENT = address(BASE + PAGE_SIZE);
const TARGET = address(BASE + 2 * PAGE_SIZE);
const OUT = address(BASE + 4 * PAGE_SIZE);
/** Offsets in a page at which the steps of an implementation begin or end. */
const EDGES = [0, 1, 7, 8, 15, 16, 31, 63, 64, 65, 127, 128, 2047, 2048, 4031, 4032, 4094, 4095];

const hex = (memory: Uint8Array, from: number, length: number): string =>
  Buffer.from(memory.slice(from, from + length)).toString("hex");

function checkPages(t: Test, kernels: PageKernels): void {
  const { memory } = kernels;
  t.test("one byte anywhere makes a page neither zero nor equal to another", async (t) => {
    memory.fill(0, BASE, OUT);
    t.equal(kernels.isZero(BASE), true);
    t.equal(kernels.equal(BASE, CURRENT), true);
    for (const at of EDGES)
      for (const value of [1, 0x80]) {
        memory[BASE + at] = value;
        t.equal(kernels.isZero(BASE), false, `${value} at ${at}`);
        t.equal(kernels.equal(BASE, CURRENT), false, `${value} at ${at}`);
        memory[BASE + at] = 0;
      }
  });

  t.test("bytes before and after a page do not count", async (t) => {
    memory.fill(0, BASE, OUT);
    memory[BASE - 1] = 1;
    memory[CURRENT] = 1;
    t.equal(kernels.isZero(BASE), true);
    memory[CURRENT] = 0;
    memory[TARGET] = 1;
    t.equal(kernels.equal(BASE, CURRENT), true);
    memory[BASE - 1] = 0;
  });

  t.test("isZero() and equal() need no alignment of a page", async (t) => {
    memory.fill(0, BASE, OUT);
    memory[BASE + 2] = 9;
    t.equal(kernels.isZero(address(BASE + 3)), true);
    t.equal(kernels.isZero(address(BASE + 2)), false);
    t.equal(kernels.equal(address(BASE + 3), address(CURRENT + 5)), true);
  });

  t.test("copy() copies bytes also between places that overlap", async (t) => {
    for (let at = 0; at < 64; at++) memory[BASE + at] = at;
    kernels.copy(address(BASE + 10), BASE, 50);
    t.same(
      memory.slice(BASE, BASE + 64),
      Uint8Array.from({ length: 64 }, (_, at) => (at < 10 || at > 59 ? at : at - 10)),
    );
    kernels.copy(BASE, address(BASE + 10), 50);
    t.same(
      memory.slice(BASE, BASE + 50),
      Uint8Array.from({ length: 50 }, (_, at) => at),
    );
    kernels.copy(BASE, address(BASE + 1), 0);
    t.equal(memory[BASE], 0, "a copy of length 0 changes nothing");
  });
}

/** The example of QEMU's docs/xbzrle.txt (docs/devel/migration in later versions), whose encoding has 24 bytes. */
const DOCUMENT = {
  before: "05060708090a0b0c0d0e0f101112136800006b006d",
  after: "0102030405060708090a0b0c0d0e0f680000670069",
  at: 1001,
  encoded: "e9070f0102030405060708090a0b0c0d0e0f030167010169",
};

function checkEncoding(t: Test, kernels: PageKernels): void {
  const { memory } = kernels;
  const encode = (limit: number): number => kernels.encodeDelta(BASE, CURRENT, OUT, limit);

  t.test("the example of QEMU's document encodes to its 24 bytes and decodes to its page", async (t) => {
    memory.fill(0, BASE, OUT);
    memory.set(Buffer.from(DOCUMENT.before, "hex"), BASE + DOCUMENT.at);
    memory.set(Buffer.from(DOCUMENT.after, "hex"), CURRENT + DOCUMENT.at);
    t.equal(encode(PAGE_SIZE), 24);
    t.equal(hex(memory, OUT, 24), DOCUMENT.encoded);
    kernels.copy(TARGET, BASE, PAGE_SIZE);
    t.equal(kernels.decodeDelta(TARGET, OUT, 24), DOCUMENT.at + 21);
    t.equal(kernels.equal(TARGET, CURRENT), true);
  });

  t.test("the delta of equal pages has 0 bytes, whatever the limit", async (t) => {
    memory.fill(7, BASE, TARGET);
    for (const limit of [0, 1, PAGE_SIZE]) t.equal(encode(limit), 0);
  });

  t.test("a count takes one byte below 128, and two bytes from 128 on", async (t) => {
    for (const equals of [0, 1, 127, 128, 4000])
      for (const news of [1, 2, 3, 4, 7, 8, 15, 16, 17, 63, 64, 65, 96]) {
        memory.fill(0, BASE, CURRENT + PAGE_SIZE);
        memory.fill(0xab, CURRENT + equals, CURRENT + equals + news);
        const count = equals < 128 ? [equals] : [(equals & 127) | 128, equals >> 7];
        const expected = Buffer.from([...count, news, ...new Array<number>(news).fill(0xab)]).toString("hex");
        t.equal(encode(PAGE_SIZE), expected.length / 2, `${equals} equal, ${news} new`);
        t.equal(hex(memory, OUT, expected.length / 2), expected);
      }
  });

  t.test(
    "a delta of exactly the limit fits, a longer one is given up, and no byte after the limit is touched",
    async (t) => {
      memory.fill(0, BASE, TARGET);
      memory.fill(1, CURRENT + 100, CURRENT + 200);
      memory.fill(2, CURRENT + 3000, CURRENT + 3500);
      const length = 1 + 1 + 100 + 2 + 2 + 500;
      t.equal(encode(length), length);
      for (const limit of [length - 1, 103, 102, 101, 16, 2, 1, 0, -1]) {
        memory.fill(0xee, OUT, OUT + 2 * PAGE_SIZE);
        t.equal(encode(limit), -1, `limit ${limit}`);
        const from = OUT + Math.max(limit, 0);
        t.ok(
          memory.subarray(from, OUT + 2 * PAGE_SIZE).every((byte) => byte === 0xee),
          `limit ${limit}`,
        );
      }
    },
  );

  t.test("no delta is longer than QEMU takes, even if the limit would allow it", async (t) => {
    memory.fill(0, BASE, TARGET);
    memory.fill(1, CURRENT, TARGET);
    t.equal(encode(3 * PAGE_SIZE), -1, "a delta of 4099 bytes is given up");
    memory.fill(0, TARGET - 3, TARGET);
    t.equal(encode(3 * PAGE_SIZE), PAGE_SIZE, "a delta of 4096 bytes is made");
    t.equal(kernels.deltaIsValid(OUT, PAGE_SIZE), true);
  });
}

/** Deltas: their bytes, what the decoder returns for them, and a name for the case. */
const DELTAS: readonly (readonly [readonly number[], number, string])[] = [
  [[0, 1, 7], 1, "an equal run of 0 at first"],
  [[0x80, 0, 1, 7], 1, "the same in two bytes"],
  [[5, 2, 7, 7], 7, "a run of two"],
  [[5, 0x82, 0, 7, 7], 7, "a count in more bytes than it needs"],
  [[0xff, 0x1f, 1, 7], 4096, "the last byte of a page"],
  [[1, 1, 7, 1, 1, 7], 4, "two runs"],
  [[0x80, 0x20, 1, 7], -1, "a byte behind the page"],
  [[0xff, 0x1f, 2, 7, 7], -1, "a run that leaves the page"],
  [[0xff, 0x7f, 1, 7], -1, "the largest equal run"],
  [[5], -1, "half a pair"],
  [[5, 1], -1, "a run without its bytes"],
  [[5, 0], -1, "a new run of 0, with nothing behind it"],
  [[5, 0, 7], -1, "a new run of 0"],
  [[5, 0x80, 0, 7], -1, "a new run of 0 in two bytes"],
  [[0, 1, 7, 0, 1, 7], -1, "an equal run of 0 later on"],
  [[0, 1, 7, 0x80, 0, 1, 7], -1, "the same in two bytes"],
  [[0, 3, 7], -1, "fewer bytes than said"],
  [[0, 1, 7, 5], -1, "one byte too many"],
  [[0xff, 0xff, 1, 7], -1, "a count of three bytes"],
  [[0, 0xff, 0xff, 7], -1, "a new run's count of three bytes"],
];

function checkDecoding(t: Test, kernels: PageKernels): void {
  const { memory } = kernels;
  t.test("deltas are accepted and refused by the rules of QEMU's decoder", async (t) => {
    for (const [bytes, covered, why] of DELTAS) {
      memory.fill(0, TARGET, TARGET + PAGE_SIZE);
      memory.fill(1, OUT, OUT + PAGE_SIZE); // if a decoder read on, these bytes would make most of the deltas valid
      memory.set(bytes, OUT);
      t.equal(kernels.deltaIsValid(OUT, bytes.length), covered >= 0, why);
      t.equal(kernels.isZero(TARGET), true, "deltaIsValid() writes nothing");
      t.equal(kernels.decodeDelta(TARGET, OUT, bytes.length), covered, why);
    }
  });

  t.test("a delta that is longer than a page, or empty, is not valid", async (t) => {
    memory.fill(1, OUT, OUT + 2 * PAGE_SIZE);
    for (const length of [PAGE_SIZE + 1, 2 ** 31 - 1, -1]) {
      t.equal(kernels.deltaIsValid(OUT, length), false, `${length} bytes`);
      t.equal(kernels.decodeDelta(TARGET, OUT, length), -1, `${length} bytes`);
    }
    t.equal(kernels.deltaIsValid(OUT, 0), false);
    t.equal(kernels.decodeDelta(TARGET, OUT, 0), 0, "QEMU's decoder does nothing for an empty delta");
  });

  t.test("decodeDelta() writes only the new bytes of a page, and nothing outside of the page", async (t) => {
    memory.fill(0xee, CURRENT, OUT);
    memory.set([3, 2, 0x11, 0x22, 0xf9, 0x1f, 2, 0x33, 0x44], OUT);
    t.equal(kernels.decodeDelta(TARGET, OUT, 9), PAGE_SIZE);
    const expected = new Uint8Array(OUT - CURRENT).fill(0xee);
    expected.set([0x11, 0x22], PAGE_SIZE + 3);
    expected.set([0x33, 0x44], 2 * PAGE_SIZE - 2);
    t.same(memory.slice(CURRENT, OUT), expected);
  });
}

/** Texts and their XXH64 with seed 0, from the reference implementation (xxhsum -H1). */
const HASHES: readonly (readonly [string, string])[] = [
  ["", "ef46db3751d8e999"],
  ["a", "d24ec4f1a98c6e5b"],
  ["abc", "44bc2cf5ad770999"],
  ["Nobody inspects the spammish repetition", "fbcea83c8a378bf1"],
];

function checkChecksum(t: Test, kernels: PageKernels): void {
  const { memory } = kernels;
  t.test("checksum() writes XXH64 in little endian, at any address", async (t) => {
    for (const [text, expected] of HASHES)
      for (const shift of [0, 1, 7]) {
        memory.set(Buffer.from(text), BASE + shift);
        memory.fill(0xee, OUT, OUT + 32);
        kernels.checksum(address(BASE + shift), text.length, address(OUT + 8 + shift));
        const found = Buffer.from(memory.slice(OUT, OUT + 32));
        t.equal(
          found
            .readBigUInt64LE(8 + shift)
            .toString(16)
            .padStart(16, "0"),
          expected,
          `"${text}"`,
        );
        t.ok(found.subarray(0, 8 + shift).every((byte) => byte === 0xee));
        t.ok(found.subarray(16 + shift).every((byte) => byte === 0xee));
      }
  });
}

/** Runs the suite. @param create makes kernels with a memory of as many bytes as it is given */
export function pageKernelsCompliance(t: Test, create: (byteLength: number) => PageKernels): void {
  const kernels = create(SUITE_BYTES);
  t.test("the memory has the length that was asked for, is shared from its start, and is all zero", async (t) => {
    t.equal(kernels.memory.byteLength, SUITE_BYTES);
    t.equal(kernels.memory.byteOffset, 0);
    t.ok(kernels.memory.buffer instanceof SharedArrayBuffer);
    t.ok(kernels.memory.every((byte) => byte === 0));
    t.equal(
      create(SUITE_BYTES - 1000).memory.byteLength,
      SUITE_BYTES - 1000,
      "a length need not be a multiple of a page",
    );
  });
  t.test("an impossible length of memory is a RangeError", async (t) => {
    for (const length of [0, -1, KERNEL_RESERVED_BYTES, 1.5, Number.NaN, 2 ** 32 - 65535, 2 ** 32])
      t.throws(() => create(length), RangeError, `${length}`);
  });
  checkPages(t, kernels);
  checkEncoding(t, kernels);
  checkDecoding(t, kernels);
  checkChecksum(t, kernels);
}
