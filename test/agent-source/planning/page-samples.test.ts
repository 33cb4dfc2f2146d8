/** Tests `PageSamples`: which pages of a guest are kept as samples, and with what they are compared. */
import t from "tap";
import { PageSamples } from "../../../agent-source/planning/page-samples.ts";
import { KERNEL_RESERVED_BYTES } from "../../../shared/page/kernel-memory.ts";
import { address, PAGE_SIZE } from "../../../shared/units.ts";
import { PlainKernels } from "../../support/plain-kernels.ts";

const FRAME = 4 * PAGE_SIZE;

function made(pageCount: number) {
  const at = address(KERNEL_RESERVED_BYTES);
  const region = address(at + PAGE_SIZE);
  const kernels = new PlainKernels(region + PageSamples.regionBytes(FRAME));
  const samples = new PageSamples(kernels, region, pageCount, FRAME);
  /** Fills the page at `at` with zeros, except for the first bytes, which say which page it is. */
  const fill = (value: number): void => {
    kernels.memory.fill(0, at, at + PAGE_SIZE);
    new DataView(kernels.memory.buffer, at).setUint32(0, value, true);
  };
  const first = (page: number, now = 0): void => {
    fill(page);
    samples.first(page, at, now);
  };
  const again = (page: number, value: number, now: number): void => {
    fill(value);
    samples.again(page, at, now);
  };
  const pagesOf = (frame: { at: number; length: number }): number[] =>
    Array.from({ length: frame.length / PAGE_SIZE }, (_, place) =>
      new DataView(kernels.memory.buffer, frame.at + place * PAGE_SIZE).getUint32(0, true),
    );
  return { samples, first, again, pagesOf, kernels, at };
}

t.test("frames of whole pages are taken from all over a guest, however large the guest is", async (t) => {
  const { samples, first, pagesOf } = made(4096);
  for (let page = 0; page < 4096; page++) first(page);
  const frames = samples.frames().map(pagesOf);
  t.equal(frames.length, 64);
  t.same(frames[0], [0, 1, 2, 3]);
  t.same(
    frames.map(([lead]) => lead).sort((one, other) => one! - other!),
    Array.from({ length: 64 }, (_, index) => index * 64),
    "one frame starts in each 64 pages",
  );
  t.ok(
    frames.every((pages) => pages.every((page, place) => page === pages[0]! + place)),
    "the pages of a frame are neighbours, as they are when they are sent",
  );
});

t.test("a guest with less than a frame is a sample all the same, and an empty guest gives none", async (t) => {
  const { samples, first, pagesOf } = made(4096);
  t.same(samples.frames(), []);
  first(7);
  first(9);
  t.same(samples.frames().map(pagesOf), [[7, 9]]);
  for (const page of [10, 11, 12]) first(page);
  t.same(
    samples.frames().map(pagesOf),
    [[7, 9, 10, 11]],
    "a frame that is not full is left out once there is a full one",
  );
});

t.test("a page that is dirtied again is compared with its earlier content, by the age of that content", async (t) => {
  const { samples, first, again, kernels, at } = made(8);
  for (let page = 0; page < 8; page++) first(page, 0);
  again(0, 100, 0.25);
  again(0, 101, 0.5);
  again(3, 300, 0.5);
  again(3, 300, 4);
  kernels.memory.fill(1, at, at + PAGE_SIZE);
  for (let byte = 0; byte < PAGE_SIZE; byte++) kernels.memory[at + byte] = (byte * 7919) & 0xff;
  samples.again(4, at, 1);
  const found = samples.deltaSamples().map(({ seconds, pages, wholePages }) => ({ seconds, pages, wholePages }));
  t.same(found, [
    { seconds: 0.5, pages: 3, wholePages: 1 },
    { seconds: 4, pages: 1, wholePages: 0 },
  ]);
  const [young, old] = samples.deltaSamples();
  t.ok(young!.bytes > 0 && young!.bytes < 20 && young!.length > 0, "the delta is a word or two");
  t.ok(old!.bytes > 0, "the base was kept for as long as its group needs it");
});

t.test("a page that was zero, or was not seen before, has nothing to be compared with", async (t) => {
  const { samples, first, again } = made(8);
  first(0, 0);
  samples.zero(0);
  again(0, 5, 1);
  again(4, 5, 1);
  t.same(samples.deltaSamples(), []);
  again(4, 6, 2);
  t.equal(samples.deltaSamples().length, 1);
});

t.test("of a large guest only one page in several is a sample", async (t) => {
  const { samples, first, again } = made(40_960);
  for (let page = 0; page < 200; page++) first(page, 0);
  for (let page = 0; page < 200; page++) again(page, 1_000_000, 5);
  const pages = samples.deltaSamples().reduce((sum, one) => sum + one.pages, 0);
  t.equal(pages, Math.ceil(200 / 11), "every eleventh page is a sample, since there is a base for each of 4096");
});
