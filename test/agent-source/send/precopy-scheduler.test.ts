/** Tests `PrecopyScheduler`: which pages go next in precopy, and in which form. */
import fc from "fast-check";
import t from "tap";
import { PrecopyScheduler } from "../../../agent-source/send/precopy-scheduler.ts";
import { frameBufferBytes } from "../../../shared/codec/page-frame.ts";
import { KERNEL_RESERVED_BYTES } from "../../../shared/page/kernel-memory.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { address, PAGE_SIZE, pageIndex } from "../../../shared/units.ts";
import { FakeDestination, FakeGuest } from "../../support/fake-guest.ts";

const FRAME_BYTES = 32768;
const FRAME_AT = KERNEL_RESERVED_BYTES;
const WINDOW = FRAME_AT + Math.ceil(frameBufferBytes(FRAME_BYTES) / PAGE_SIZE) * PAGE_SIZE;
const SCRATCH = WINDOW + PAGE_SIZE;
const REGION = SCRATCH + PAGE_SIZE;

interface Knobs {
  pages?: number;
  delta?: boolean;
  reorder?: boolean;
  pendingSlots?: number;
  baseSlots?: number;
  reserveSlots?: number;
}

function setUp({
  pages = 300,
  delta = true,
  reorder = true,
  pendingSlots = 128,
  baseSlots = 128,
  reserveSlots = 0,
}: Knobs) {
  const options = { pageCount: pages, delta, reorder, pendingSlots, baseSlots, reserveSlots, frameBytes: FRAME_BYTES };
  const kernels = loadKernels(REGION + PrecopyScheduler.regionBytes(options));
  const scheduler = new PrecopyScheduler(kernels, address(REGION), options);
  const destination = new FakeDestination(kernels, pages, SCRATCH);
  const send = (holdPages: number): boolean => {
    scheduler.holdPages = holdPages;
    const length = scheduler.fill(address(FRAME_AT));
    if (length > 0) destination.take(scheduler.frameAt, length);
    return length > 0;
  };
  return { kernels, scheduler, destination, send };
}

t.test("post-copy has room for a requested page, even when the arena is full and there are no bases", async (t) => {
  const { kernels, scheduler } = setUp({ delta: false, pendingSlots: 128, reserveSlots: 1 });
  kernels.memory[SCRATCH] = 1;
  const capture = (page: number): boolean => scheduler.capture(pageIndex(page), address(SCRATCH));
  for (let page = 0; page < 128; page++) t.ok(capture(page));
  t.notOk(capture(128));
  scheduler.pages.dropBases();
  t.ok(capture(128));
  t.notOk(capture(129));
});

t.test("the frames rebuild the guest's memory, whatever the guest writes and the link allows", async () => {
  fc.assert(
    fc.property(
      fc.record({
        seed: fc.integer({ min: 1, max: 2 ** 31 }),
        delta: fc.boolean(),
        reorder: fc.boolean(),
        pendingSlots: fc.integer({ min: 8, max: 200 }),
        baseSlots: fc.integer({ min: 0, max: 300 }),
        steps: fc.array(fc.nat(6), { maxLength: 120 }),
      }),
      ({ seed, steps, ...knobs }) => {
        const { kernels, scheduler, destination, send } = setUp({ pages: 300, ...knobs });
        const guest = new FakeGuest(300, seed);
        for (const step of steps) {
          if (step <= 1) guest.feed(scheduler, kernels, WINDOW, 60);
          else if (step === 2) send(Math.floor(knobs.pendingSlots / 2));
          else if (step === 3) for (let i = 0; i < 40; i++) guest.scribble(guest.pick(100), 4);
          else if (step === 4) guest.scribble(guest.pick(300), 512);
          else if (step === 5) guest.wipe(guest.pick(300));
          else scheduler.fade();
        }
        while (!guest.isClean) {
          guest.feed(scheduler, kernels, WINDOW, 60);
          send(0);
        }
        while (send(0));
        return scheduler.isEmpty && Buffer.compare(guest.memory, destination.memory) === 0;
      },
    ),
    { numRuns: 150 },
  );
});

t.test("the same seed gives the same frames", async (t) => {
  const run = (): string => {
    const { kernels, scheduler, destination, send } = setUp({});
    const guest = new FakeGuest(300, 42);
    for (let round = 0; round < 30; round++) {
      guest.feed(scheduler, kernels, WINDOW, 50);
      send(20);
      for (let i = 0; i < 20; i++) guest.scribble(guest.pick(60), 4);
      if (round % 5 === 0) scheduler.fade();
    }
    return JSON.stringify([destination.order, scheduler.total]);
  };
  t.equal(run(), run());
});

t.test("cold pages go before hot ones, and without reordering pages go in the order of arrival", async (t) => {
  for (const reorder of [true, false]) {
    const { kernels, scheduler, destination, send } = setUp({ reorder });
    const put = (page: number, value: number): void => {
      kernels.memory.fill(value, WINDOW, WINDOW + PAGE_SIZE);
      scheduler.capture(pageIndex(page), address(WINDOW));
    };
    for (const page of [1, 2, 3]) put(page, page);
    while (send(0));
    destination.order.length = 0;
    put(1, 11); // page 1 came twice, so it is hot
    put(9, 9); // page 9 comes for the first time, so it is cold
    put(2, 22);
    put(8, 8);
    while (send(0));
    t.same(destination.order, reorder ? [9, 8, 1, 2] : [1, 9, 2, 8], reorder ? "by heat" : "by arrival");
  }
});

t.test("hot pages are held while they are few, and sent once with their last content", async (t) => {
  const { kernels, scheduler, destination, send } = setUp({});
  const put = (page: number, value: number): void => {
    kernels.memory.fill(value, WINDOW, WINDOW + PAGE_SIZE);
    scheduler.capture(pageIndex(page), address(WINDOW));
  };
  put(5, 1);
  send(0);
  for (let value = 2; value < 12; value++) {
    put(5, value);
    t.notOk(send(10), "the page is held");
  }
  t.equal(scheduler.pages.coalesced, 9);
  t.ok(send(0));
  t.equal(destination.order.length, 2);
  t.equal(destination.memory[5 * PAGE_SIZE], 11);
});

t.test("a page that the guest has changed back to what was sent is skipped", async (t) => {
  const { kernels, scheduler, send } = setUp({});
  kernels.memory.fill(7, WINDOW, WINDOW + PAGE_SIZE);
  scheduler.capture(pageIndex(4), address(WINDOW));
  send(0);
  scheduler.capture(pageIndex(4), address(WINDOW));
  t.notOk(send(0));
  t.equal(scheduler.skipped, 1);
  t.ok(scheduler.isEmpty);
});

t.test("zero pages travel as runs, and a page that is known to be zero does not travel", async (t) => {
  const { scheduler, destination, send } = setUp({});
  for (let page = 0; page < 200; page++) scheduler.captureZero(pageIndex(page));
  send(0);
  t.equal(scheduler.total.zeroPages, 200);
  t.ok(scheduler.total.zeroBytes < 10, "all of them are one record");
  t.equal(destination.order.length, 200);
  for (let page = 0; page < 200; page++) scheduler.captureZero(pageIndex(page));
  t.notOk(send(0));
  t.equal(scheduler.skipped, 200);
});

t.test("known zero pages do not hide the pages after them, however many they are", async (t) => {
  const { scheduler, send } = setUp({ pages: 100_000 });
  for (let page = 0; page < 99_990; page++) scheduler.captureZero(pageIndex(page));
  while (send(0));
  for (let page = 0; page < 100_000; page++) scheduler.captureZero(pageIndex(page));
  t.ok(send(0));
  t.equal(scheduler.frame.zeroPages, 10);
  t.ok(scheduler.isEmpty);
});

t.test("a small change becomes a delta, a large one a full page", async (t) => {
  const { kernels, scheduler, send } = setUp({});
  const capture = (): boolean => scheduler.capture(pageIndex(3), address(WINDOW));
  for (let i = 0; i < PAGE_SIZE; i++) kernels.memory[WINDOW + i] = (i * 7) & 255;
  capture();
  send(0);
  t.equal(scheduler.frame.fullPages, 1);
  kernels.memory.fill(1, WINDOW + 100, WINDOW + 132);
  capture();
  send(0);
  t.equal(scheduler.frame.deltaPages, 1);
  t.ok(scheduler.frame.deltaBytes < 48, `${scheduler.frame.deltaBytes} bytes`);
  for (let i = 0; i < PAGE_SIZE; i++) kernels.memory[WINDOW + i] = (i * 13 + 5) & 255;
  capture();
  send(0);
  t.equal(scheduler.frame.fullPages, 1);
});

t.test("pages that change as a whole are expected to cost whole pages, with a base or without", async (t) => {
  const { kernels, scheduler, send } = setUp({ pages: 100 });
  const rewrite = (words: number): void => {
    const content = new Uint32Array(kernels.memory.buffer, WINDOW, 1024);
    for (let page = 0; page < 100; page++) {
      for (let word = 0; word < words; word++) content[word] = Math.imul(page + word + rounds, 2_654_435_761);
      scheduler.capture(pageIndex(page), address(WINDOW));
    }
    rounds++;
    while (send(0));
  };
  let rounds = 1;
  for (let round = 0; round < 6; round++) rewrite(1024);
  t.ok(scheduler.bytesPerDirtyPage() > 3500, `${scheduler.bytesPerDirtyPage()} bytes`);
  for (let round = 0; round < 16; round++) rewrite(4);
  t.ok(scheduler.bytesPerDirtyPage() < 200, `${scheduler.bytesPerDirtyPage()} bytes once the changes are small`);
});

t.test("the work that would be sent now leaves out held pages that were sent before", async (t) => {
  const { kernels, scheduler, send } = setUp({});
  const put = (page: number, value: number): void => {
    kernels.memory.fill(value, WINDOW, WINDOW + PAGE_SIZE);
    scheduler.capture(pageIndex(page), address(WINDOW));
  };
  const workBytes = (holdPages: number): number => {
    scheduler.holdPages = holdPages;
    return scheduler.workBytes;
  };
  t.notOk(scheduler.resendCostIsMeasured);
  for (let page = 0; page < 40; page++) put(page, 1);
  t.equal(workBytes(0), 40 * (PAGE_SIZE + 3));
  while (send(0));
  t.equal(workBytes(0), 0);
  for (let page = 0; page < 40; page++) put(page, 2);
  t.equal(workBytes(40), 0, "all of them are hot, and may be held");
  t.equal(workBytes(30), 10 * scheduler.bytesPerDirtyPage());
  for (let page = 100; page < 105; page++) put(page, 1);
  t.equal(workBytes(40), 5 * (PAGE_SIZE + 3), "cold pages go in any case");
  while (send(0));
  t.notOk(scheduler.resendCostIsMeasured, "40 pages say little about all pages");
  for (let round = 3; round < 9; round++) {
    for (let page = 0; page < 40; page++) put(page, round);
    while (send(0));
  }
  t.ok(scheduler.resendCostIsMeasured);
  t.ok(setUp({ delta: false }).scheduler.resendCostIsMeasured, "without deltas the cost is a whole page");
});

t.test("a full arena takes no new page until something was sent", async (t) => {
  const { kernels, scheduler, send } = setUp({ pendingSlots: 8 });
  kernels.memory.fill(1, WINDOW, WINDOW + PAGE_SIZE);
  for (let page = 0; page < 8; page++) t.ok(scheduler.capture(pageIndex(page), address(WINDOW)));
  t.notOk(scheduler.capture(pageIndex(8), address(WINDOW)));
  t.ok(scheduler.capture(pageIndex(3), address(WINDOW)), "a newer version of a pending page needs no room");
  send(0);
  t.ok(scheduler.capture(pageIndex(8), address(WINDOW)));
});

t.test("bases stay within their budget, and the hottest pages keep theirs", async (t) => {
  const { kernels, scheduler, send } = setUp({ baseSlots: 4 });
  const put = (page: number, value: number): void => {
    kernels.memory.fill(value, WINDOW, WINDOW + PAGE_SIZE);
    kernels.memory.fill(page, WINDOW, WINDOW + 8);
    scheduler.capture(pageIndex(page), address(WINDOW));
  };
  for (let page = 1; page <= 8; page++) put(page, 100);
  while (send(0));
  t.equal(scheduler.pages.baseCount, 4);
  for (let page = 5; page <= 8; page++) put(page, 101);
  while (send(0));
  t.equal(scheduler.pages.baseCount, 4);
  t.equal(scheduler.pages.evicted, 4, "cold bases gave way to hot ones");
  for (let page = 5; page <= 8; page++) {
    kernels.memory.fill(101, WINDOW, WINDOW + PAGE_SIZE);
    kernels.memory.fill(page, WINDOW, WINDOW + 8);
    kernels.memory[WINDOW + 2000] = 9;
    scheduler.capture(pageIndex(page), address(WINDOW));
  }
  while (send(0));
  t.equal(scheduler.total.deltaPages, 4);
});
