/**
 * Tests what post-copy asks of the page store. What the store does while the guest is copied is tested through the
 * scheduler (test/agent-source/send/precopy-scheduler.test.ts).
 */
import fc from "fast-check";
import t from "tap";
import { HeatMap } from "../../../shared/page/heat-map.ts";
import { KERNEL_RESERVED_BYTES } from "../../../shared/page/kernel-memory.ts";
import { NONE, PageStore, ZERO } from "../../../shared/page/page-store.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { address, PAGE_SIZE, pageIndex } from "../../../shared/units.ts";

const PAGES = 40;
const CONTENT = address(KERNEL_RESERVED_BYTES);
const LIMITS = { pendingSlots: 8, baseSlots: 6, reserveSlots: 3 };
const kernels = loadKernels(KERNEL_RESERVED_BYTES + PAGE_SIZE * 18);

const newStore = (byHeat = true): PageStore =>
  new PageStore(kernels, address(CONTENT + PAGE_SIZE), LIMITS, new HeatMap(PAGES), { pageCount: PAGES, byHeat });

const capture = (store: PageStore, page: number): boolean => store.capture(pageIndex(page), CONTENT);

function send(store: PageStore, page: number): void {
  const slot = store.pendingOf(pageIndex(page));
  if (slot === ZERO) store.sentZero(pageIndex(page));
  else if (slot !== NONE) store.sentContent(pageIndex(page), slot, true);
}

t.test("the hottest pending page is the one that came most often, and the oldest among equals", async (t) => {
  const store = newStore();
  t.equal(store.hottestPending(), -1, "no page is pending");
  for (const page of [3, 4, 5, 6, 4, 6, 6, 6, 5]) capture(store, page);
  const order: number[] = [];
  for (let slot = store.hottestPending(); slot >= 0; slot = store.hottestPending()) {
    order.push(store.pageOf(slot));
    store.drop(store.pageOf(slot));
  }
  t.same(order, [6, 4, 5, 3]);
});

t.test("without an order by heat the hottest pending page is the oldest", async (t) => {
  const store = newStore(false);
  for (const page of [3, 4, 4, 4]) capture(store, page);
  t.equal(store.pageOf(store.hottestPending()), 3);
});

t.test("a page that is dropped is not pending any more, and its room is free", async (t) => {
  const store = newStore();
  for (let page = 0; page < 8; page++) capture(store, page);
  t.equal(store.pendingRoom, 0);
  t.notOk(capture(store, 8), "there is no room");
  store.drop(pageIndex(3));
  t.notOk(store.isPending(pageIndex(3)));
  t.equal(store.pendingRoom, 1);
  t.ok(capture(store, 8));
  store.captureZero(pageIndex(20));
  t.ok(store.isPending(pageIndex(20)));
  store.drop(pageIndex(20));
  t.notOk(store.isPending(pageIndex(20)));
  t.equal(store.zeroCount, 0);
  store.drop(pageIndex(21));
  t.equal(store.pendingCount, 8, "to drop a page that is not pending does nothing");
});

t.test("when bases are dropped their room is for pending pages, and no page has a base", async (t) => {
  const store = newStore();
  for (let page = 0; page < 6; page++) {
    capture(store, page);
    send(store, page);
  }
  store.captureZero(pageIndex(30));
  send(store, 30);
  capture(store, 2);
  t.same([store.baseCount, store.pendingWithBase], [6, 1]);
  store.dropBases();
  t.same([store.baseCount, store.pendingWithBase], [0, 0]);
  for (let page = 0; page < PAGES; page++) t.equal(store.baseOf(pageIndex(page)), NONE);
  t.equal(store.pendingRoom, 16, "the room of the reserve is free too");
  for (let page = 10; page < 26; page++) t.ok(capture(store, page));
  t.notOk(capture(store, 26));
  store.sentContent(pageIndex(10), store.pendingOf(pageIndex(10)), false);
  t.ok(capture(store, 26), "the page that was sent has left no base");
});

t.test("the counts are those of the pages, whatever is captured, sent and dropped", async () => {
  const step = fc.tuple(fc.constantFrom("content", "zero", "send", "drop", "bases", "fade"), fc.nat(PAGES - 1));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 150 }), (steps) => {
      const store = newStore();
      let dropped = false;
      for (const [what, page] of steps) {
        if (what === "content") capture(store, page);
        else if (what === "zero") store.captureZero(pageIndex(page));
        else if (what === "drop") store.drop(pageIndex(page));
        else if (what === "fade") store.fade();
        else if (what === "send") {
          const slot = store.pendingOf(pageIndex(page));
          if (slot === ZERO) store.sentZero(pageIndex(page));
          else if (slot !== NONE) store.sentContent(pageIndex(page), slot, !dropped);
        } else {
          store.dropBases();
          dropped = true;
        }
      }
      const pages = Array.from({ length: PAGES }, (_, page) => pageIndex(page));
      const pending = pages.filter((page) => store.pendingOf(page) >= 0);
      const room = dropped ? LIMITS.pendingSlots + LIMITS.baseSlots + LIMITS.reserveSlots : LIMITS.pendingSlots;
      return (
        store.pendingCount === pending.length &&
        store.pendingRoom === room - pending.length &&
        store.zeroCount === pages.filter((page) => store.isPendingZero(page)).length &&
        store.baseCount === pages.filter((page) => store.baseOf(page) >= 0).length &&
        store.pendingWithBase === pending.filter((page) => store.baseOf(page) !== NONE).length &&
        store.hottestPending() < 0 === (pending.length === 0)
      );
    }),
    { numRuns: 500 },
  );
});
