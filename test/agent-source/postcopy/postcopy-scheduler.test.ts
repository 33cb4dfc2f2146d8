/** Tests `PostcopyScheduler`: which pages go next after post-copy's package. */
import fc from "fast-check";
import t from "tap";
import { PostcopyScheduler } from "../../../agent-source/postcopy/postcopy-scheduler.ts";
import { noCounts } from "../../../agent-source/send/kind-counts.ts";
import { frameBufferBytes, PageFrameReader } from "../../../shared/codec/page-frame.ts";
import { HeatMap } from "../../../shared/page/heat-map.ts";
import { KERNEL_RESERVED_BYTES } from "../../../shared/page/kernel-memory.ts";
import { PageStore } from "../../../shared/page/page-store.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { address, PAGE_SIZE, pageIndex } from "../../../shared/units.ts";

const PAGES = 200;
const FRAME_BYTES = 32768;
const FRAME_AT = KERNEL_RESERVED_BYTES;
const CONTENT = FRAME_AT + Math.ceil(frameBufferBytes(FRAME_BYTES) / PAGE_SIZE) * PAGE_SIZE;
const REGION = CONTENT + PAGE_SIZE;

function setUp(pageCount = PAGES) {
  const kernels = loadKernels(REGION + PAGES * PAGE_SIZE);
  const limits = { pendingSlots: PAGES, baseSlots: 0 };
  const heat = new HeatMap(pageCount);
  const pages = new PageStore(kernels, address(REGION), limits, heat, { pageCount, byHeat: true });
  const scheduler = new PostcopyScheduler({ kernels, pages, total: noCounts(), pageCount });
  scheduler.frameBytes = FRAME_BYTES;
  const reader = new PageFrameReader(kernels, pageCount, false);
  const capture = (page: number, zero = false): void => {
    if (zero) pages.captureZero(pageIndex(page));
    else {
      kernels.memory.fill(1 + (page % 255), CONTENT, CONTENT + PAGE_SIZE);
      pages.capture(pageIndex(page), address(CONTENT));
    }
    scheduler.captured(page);
  };
  /** Makes the next frame. @returns its pages; undefined when there was no frame */
  const sent = (urgent: boolean): number[] | undefined => {
    const length = urgent ? scheduler.fillUrgent(address(FRAME_AT)) : scheduler.fill(address(FRAME_AT));
    if (length === 0) return undefined;
    const read: number[] = [];
    reader.open(scheduler.frameAt, length);
    reader.drain({
      hasRoom: true,
      zeroPage: (page) => void read.push(page),
      page: (page, at) => {
        if (kernels.memory[at] !== 1 + (page % 255)) throw new Error(`page ${page} has other content`);
        read.push(page);
      },
      delta: () => {
        throw new Error("a delta in post-copy");
      },
    });
    return read;
  };
  return { scheduler, capture, sent };
}

t.test("pages for which the guest waits go first, and alone", async (t) => {
  const { scheduler, capture, sent } = setUp();
  scheduler.missing.addRange(0, PAGES);
  for (let page = 0; page < 20; page++) capture(page);
  t.equal(scheduler.request(15), false, "the page is here");
  t.equal(scheduler.request(100), true, "QEMU still has the page");
  t.equal(scheduler.request(100), false, "QEMU was asked for the page already");
  t.same(sent(true), [15]);
  t.notOk(scheduler.hasUrgent);
  t.ok(scheduler.wantsMore);
  capture(100);
  t.ok(scheduler.hasUrgent);
  t.same(sent(true), [100]);
});

t.test("after requested pages go zero runs, and then the pages around the one that was waited for", async (t) => {
  const { scheduler, capture, sent } = setUp();
  scheduler.missing.addRange(0, PAGES);
  for (let page = 20; page < 50; page++) capture(page);
  for (let page = 50; page < 60; page++) capture(page, true);
  scheduler.request(40);
  sent(true);
  t.same(sent(false)?.slice(0, 12), [50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 24, 25]);
});

t.test("a page that was sent is on its way, and is not sent again when it is requested", async (t) => {
  const { scheduler, capture, sent } = setUp();
  scheduler.missing.add(3);
  capture(3, true);
  t.same(sent(false), [3]);
  t.equal(scheduler.request(3), false);
  t.notOk(scheduler.hasUrgent || scheduler.wantsMore);
  t.equal(sent(true), undefined);
});

t.test("in whatever order pages come, are requested and are sent, each goes once and none is left", async () => {
  fc.assert(
    fc.property(
      fc.shuffledSubarray([...Array(PAGES).keys()], { minLength: 50 }),
      fc.array(fc.tuple(fc.nat(2), fc.nat(PAGES - 1)), { maxLength: 150 }),
      fc.nat(5),
      (order, steps, zeros) => {
        const { scheduler, capture, sent } = setUp();
        for (const page of order) scheduler.missing.add(page);
        const coming = [...order];
        const came = new Map<number, number>();
        const take = (urgent: boolean): boolean => {
          const read = sent(urgent);
          for (const page of read ?? []) came.set(page, (came.get(page) ?? 0) + 1);
          return read !== undefined;
        };
        for (const [step, page] of steps) {
          if (step === 0) scheduler.request(page);
          else if (step === 1) {
            const next = coming.shift();
            if (next !== undefined) capture(next, next % 6 < zeros);
          } else take(page % 2 === 0);
        }
        for (const page of coming) capture(page, page % 6 < zeros);
        while (scheduler.hasUrgent && take(true));
        while (take(false));
        return (
          scheduler.isEmpty &&
          scheduler.missing.size === 0 &&
          came.size === order.length &&
          [...came.values()].every((times) => times === 1)
        );
      },
    ),
    { numRuns: 40 },
  );
});

t.test(
  "there is a frame as long as there are zero pages, however long the run and whatever was requested",
  async (t) => {
    const pageCount = 40_000;
    const { scheduler, capture, sent } = setUp(pageCount);
    scheduler.missing.addRange(0, pageCount);
    for (let page = 0; page < pageCount; page++) capture(page, true);
    for (let page = 0; page < 10; page++) scheduler.request(page);
    let pages = sent(true)?.length ?? 0;
    while (!scheduler.isEmpty) {
      const frame = sent(false);
      if (frame === undefined) break;
      t.ok(frame.length <= 16_384, "the frame has a bounded size");
      pages += frame.length;
    }
    t.equal(pages, pageCount);
  },
);

t.test("requested pages that were sent with other pages do not hide a later request", async (t) => {
  const { scheduler, capture, sent } = setUp();
  scheduler.missing.addRange(0, PAGES);
  for (let page = 0; page < 20; page++) {
    capture(page);
    scheduler.request(page);
  }
  while (sent(false) !== undefined);
  capture(70);
  scheduler.request(70);
  t.same(sent(true), [70]);
  t.notOk(scheduler.hasUrgent);
});

t.test("a page that is requested again and again is sent once", (t) => {
  const { scheduler, capture, sent } = setUp();
  scheduler.missing.addRange(0, PAGES);
  for (let page = 0; page < PAGES; page++) capture(page);
  for (let turn = 0; turn < 3; turn++) for (const page of [7, 8]) scheduler.request(page);
  t.same(sent(true), [7, 8]);
  t.notOk(scheduler.hasUrgent);
  t.equal(scheduler.request(7), false, "the page is on its way");
  t.notOk(scheduler.hasUrgent);
  t.end();
});
