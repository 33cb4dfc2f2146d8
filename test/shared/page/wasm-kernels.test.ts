/** Tests the SIMD page kernels with the suite that all page kernels have to pass, and against their plain twins. */
import fc from "fast-check";
import t from "tap";
import { KERNEL_MEMORY_BYTES_MAX, KERNEL_RESERVED_BYTES } from "../../../shared/page/kernel-memory.ts";
import { createWasmKernels } from "../../../shared/page/wasm-kernels.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { address, PAGE_SIZE } from "../../../shared/units.ts";
import { pageKernelsCompliance, SUITE_BYTES } from "../../compliance/page-kernels.ts";
import { PlainKernels } from "../../support/plain-kernels.ts";

pageKernelsCompliance(t, loadKernels);

const BASE = address(KERNEL_RESERVED_BYTES);
const CURRENT = address(BASE + PAGE_SIZE);
const TARGET = address(BASE + 2 * PAGE_SIZE);
const OUT = address(BASE + 4 * PAGE_SIZE);
const plain = new PlainKernels(SUITE_BYTES);
const simd = loadKernels(SUITE_BYTES);
const twins = [plain, simd];

/** What changes in a page: a shape and a seed, so that a failing case prints short. */
interface Change {
  readonly shape: "nothing" | "words" | "half lines" | "bytes" | "run" | "everything";
  readonly seed: number;
}
const change = fc.record<Change>({
  shape: fc.constantFrom("nothing", "words", "half lines", "bytes", "run", "everything"),
  seed: fc.nat(2 ** 31 - 1),
});
const basePage = fc.oneof(
  fc.constant(new Uint8Array(PAGE_SIZE)),
  fc.uint8Array({ minLength: PAGE_SIZE, maxLength: PAGE_SIZE }),
);

/** Makes numbers from a seed (xorshift32). */
function numbers(seed: number): () => number {
  let state = seed | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

function apply(page: Uint8Array, { shape, seed }: Change): Uint8Array {
  const next = numbers(seed);
  const changed = page.slice();
  const fill = (from: number, to: number): void => {
    for (let at = from; at < Math.min(to, PAGE_SIZE); at++) changed[at] = next();
  };
  if (shape === "words") for (let i = next() % 40; i >= 0; i--) changed[next() % PAGE_SIZE] = next();
  if (shape === "half lines") for (let at = next() % 64; at < PAGE_SIZE; at += 64) fill(at, at + 32);
  if (shape === "bytes") for (let at = 0; at < PAGE_SIZE; at++) if (next() & 1024) changed[at] = next();
  if (shape === "run") {
    const from = next() % PAGE_SIZE;
    fill(from, from + (next() % PAGE_SIZE));
  }
  if (shape === "everything") fill(0, PAGE_SIZE);
  return changed;
}

t.test(
  "both twins encode any change of a page alike, within any limit, and it decodes to the changed page",
  async () => {
    fc.assert(
      fc.property(basePage, change, fc.integer({ min: -1, max: PAGE_SIZE + 1 }), (base, change, limit) => {
        const current = apply(base, change);
        const [one, other] = twins.map((kernels) => {
          kernels.memory.fill(0xee, OUT, OUT + 2 * PAGE_SIZE);
          kernels.memory.set(base, BASE);
          kernels.memory.set(current, CURRENT);
          const length = kernels.encodeDelta(BASE, CURRENT, OUT, limit);
          const written = length < 0 ? "" : Buffer.from(kernels.memory.slice(OUT, OUT + length)).toString("hex");
          const behind = kernels.memory.subarray(OUT + Math.max(limit, 0), OUT + 2 * PAGE_SIZE);
          return { length, written, kept: behind.every((byte) => byte === 0xee) };
        });
        if (one === undefined || other === undefined || !one.kept || !other.kept) return false;
        if (one.length !== other.length || one.written !== other.written) return false;
        return one.length <= 0 || twins.every((kernels) => decodes(kernels, one.length));
      }),
      { numRuns: 600 },
    );
  },
);

function decodes(kernels: typeof simd, length: number): boolean {
  kernels.copy(TARGET, BASE, PAGE_SIZE);
  if (!kernels.deltaIsValid(OUT, length) || kernels.decodeDelta(TARGET, OUT, length) <= 0) return false;
  return kernels.equal(TARGET, CURRENT);
}

/** Bytes that look like XBZRLE up to some point. */
const hostile = fc.oneof(
  fc.uint8Array({ maxLength: 300 }),
  fc
    .array(fc.tuple(fc.nat(200), fc.integer({ min: 0, max: 5 })), { maxLength: 60 })
    .map((runs) => Uint8Array.from(runs.flatMap(([equals, news]) => [equals, news, ...new Array(news).fill(equals)]))),
);

t.test("both twins judge hostile deltas alike, and write the same bytes, within the page only", async () => {
  fc.assert(
    fc.property(hostile, (bytes) => {
      const [one, other] = twins.map((kernels) => {
        kernels.memory.fill(0, BASE, OUT + PAGE_SIZE);
        kernels.memory.set(bytes, OUT);
        const valid = kernels.deltaIsValid(OUT, bytes.length);
        const covered = kernels.decodeDelta(TARGET, OUT, bytes.length);
        return { valid, covered, after: Buffer.from(kernels.memory.slice(BASE, OUT)) };
      });
      if (one === undefined || other === undefined) return false;
      if (one.valid !== (one.covered >= 0 && bytes.length > 0)) return false;
      const beside = [other.after.subarray(0, 2 * PAGE_SIZE), other.after.subarray(3 * PAGE_SIZE)];
      if (beside.some((part) => part.some((byte) => byte !== 0))) return false;
      return one.valid === other.valid && one.covered === other.covered && one.after.equals(other.after);
    }),
    { numRuns: 3000 },
  );
});

t.test("both twins give the same checksum for any length, and the same answers on any two pages", async () => {
  fc.assert(
    fc.property(basePage, change, fc.nat(PAGE_SIZE), fc.nat(40), (page, change, length, shift) => {
      const [one, other] = twins.map((kernels) => {
        kernels.memory.set(page, BASE);
        kernels.memory.set(apply(page, change), CURRENT);
        kernels.checksum(address(BASE + shift), length, OUT);
        const sum = Buffer.from(kernels.memory.slice(OUT, OUT + 8)).toString("hex");
        return `${sum} ${kernels.isZero(BASE)} ${kernels.isZero(CURRENT)} ${kernels.equal(BASE, CURRENT)}`;
      });
      return one === other;
    }),
    { numRuns: 400 },
  );
});

t.test("the largest memory that there can be works up to its last byte", async (t) => {
  const large = loadKernels(KERNEL_MEMORY_BYTES_MAX);
  const last = address(KERNEL_MEMORY_BYTES_MAX - PAGE_SIZE);
  const before = address(last - PAGE_SIZE);
  t.equal(large.isZero(last), true);
  large.memory[KERNEL_MEMORY_BYTES_MAX - 1] = 9;
  t.equal(large.isZero(last), false);
  t.equal(large.encodeDelta(before, last, address(2 ** 31), 100), 4);
  t.same(large.memory.slice(2 ** 31, 2 ** 31 + 4), [0xff, 0x1f, 1, 9]);
  t.equal(large.decodeDelta(before, address(2 ** 31), 4), PAGE_SIZE);
  t.equal(large.equal(before, last), true);
  large.checksum(last, PAGE_SIZE, address(2 ** 31));
  plain.memory.fill(0, BASE, CURRENT);
  plain.memory[CURRENT - 1] = 9;
  plain.checksum(BASE, PAGE_SIZE, OUT);
  t.same(large.memory.slice(2 ** 31, 2 ** 31 + 8), plain.memory.slice(OUT, OUT + 8));
});

t.test("a module that was not made from the kernels is refused", async (t) => {
  const empty = new WebAssembly.Module(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0));
  t.throws(() => createWasmKernels(empty, SUITE_BYTES), TypeError);
});
