/** Tests `GuestObserver`: what a planner learns about a guest from QEMU's stream. */
import t from "tap";
import { GuestObserver } from "../../../agent-source/planning/guest-observer.ts";
import { PageSamples } from "../../../agent-source/planning/page-samples.ts";
import { KERNEL_RESERVED_BYTES } from "../../../shared/page/kernel-memory.ts";
import { address, PAGE_SIZE } from "../../../shared/units.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { PlainKernels } from "../../support/plain-kernels.ts";

const PAGES = 256;
const FRAME = 4 * PAGE_SIZE;
/** How long a look waits for what is in QEMU's socket once the guest stands still, milliseconds. */
const READ_WITHIN_MS = 1000;

/** Makes an observer whose clock is set by hand. The test gives it sections as QEMU would. */
function made(observeMs: number) {
  const clock = new FakeClock();
  const content = address(KERNEL_RESERVED_BYTES);
  const zero = address(content + PAGE_SIZE);
  const region = address(zero + PAGE_SIZE);
  const kernels = new PlainKernels(region + PageSamples.regionBytes(FRAME));
  kernels.memory.fill(1, content, zero);
  let resumed = 0;
  const observer = new GuestObserver({
    kernels,
    samples: new PageSamples(kernels, region, PAGES, FRAME),
    pageCount: PAGES,
    clock,
    observeMs,
    looksPerSecond: 20,
    resumeIntake: () => resumed++,
  });
  t.teardown(() => observer.stop());
  const section = (pages: readonly number[], afterMs: number): boolean => {
    clock.jump(afterMs);
    for (const page of pages) observer.page(page, content);
    return observer.partEnd();
  };
  const block = { name: "pc.ram", byteLength: PAGES * PAGE_SIZE, pageSize: PAGE_SIZE };
  observer.layout({ blocks: [block], ramSectionId: 1 } as never);
  const firstCopy = (): void => {
    for (let page = 0; page < PAGES; page++)
      if (page < 100) observer.page(page, content);
      else if (page < 150) observer.page(page, zero);
      else observer.zeroPage(page);
    section([], 800);
    section([1, 2, 3], 10);
  };
  return { observer, section, firstCopy, clock };
}

const some = (count: number, from = 0): number[] => Array.from({ length: count }, (_, index) => from + index);

t.test("the first copy counts the pages with content, and what is dirtied meanwhile is left out", async (t) => {
  const { observer, firstCopy } = made(1000);
  firstCopy();
  t.match(observer, { contentPages: 100, zeroPages: 156, firstCopySeconds: 0.8, workingSetPages: 0, dirtiedPages: 0 });
});

t.test(
  "the first copy ends with QEMU's second pass, even when pages that the guest calls free never come",
  async (t) => {
    const { observer, section } = made(1000);
    observer.passBegins(1);
    section(some(100), 500);
    t.equal(observer.firstCopySeconds, 0);
    observer.passBegins(2);
    section([1], 300);
    t.match(observer, { contentPages: 101, firstCopySeconds: 0.8, dirtiedPages: 0 });
  },
);

t.test("a look at a guest that is paused in its first copy does not wait for pages called free", async (t) => {
  const { clock, observer, section } = made(1000);
  section(some(100), 500);
  observer.nothingMore();
  section(some(50, 100), 100);
  await clock.advance(READ_WITHIN_MS);
  await observer.done.promise;
  t.match(observer, { contentPages: 150, firstCopySeconds: 0.6 });
});

t.test("dirtied pages are counted for windows of every length, and then closely, and the look is done", async (t) => {
  const { observer, section, firstCopy } = made(1000);
  firstCopy();
  for (let look = 0; look < 20; look++) section(some(10, 10 * (look % 2)), 50);
  let done = false;
  void observer.done.promise.then(() => {
    done = true;
  });
  for (let look = 0; look < 50; look++) section(some(2), 5);
  await observer.done.promise;
  t.equal(done, true);
  t.equal(observer.observedSeconds, 1);
  t.equal(observer.workingSetPages, 20);
  const samples = observer.dirtySamples();
  t.match(samples[0], { pages: 2 });
  t.ok(Math.abs((samples[0]?.seconds ?? 0) - 0.005) < 1e-9, "a close look lasts some milliseconds");
  t.match(samples.slice(1, 3), [
    { seconds: 0.05, pages: 10 },
    { seconds: 0.1, pages: 20 },
  ]);
  t.ok(Math.abs((samples.at(-1)?.pages ?? 0) - 20) < 1e-9);
});

t.test("close looks that a paused guest ends early are counted as they were", async (t) => {
  const { observer, section, firstCopy } = made(1000);
  firstCopy();
  for (let look = 0; look < 21; look++) section(some(10), 50);
  for (let look = 0; look < 7; look++) section(some(2), 5);
  observer.nothingMore();
  await observer.done.promise;
  const [close] = observer.dirtySamples();
  t.equal(close?.pages, 2);
  t.ok(Math.abs((close?.seconds ?? 0) - 0.005) < 1e-9);
});

t.test("empty sections of an idle guest make no epochs of their own", async (t) => {
  const { observer, section, firstCopy } = made(200);
  firstCopy();
  for (let look = 0; look < 3000; look++) section([], 0.1);
  const samples = observer.dirtySamples();
  t.ok(samples.length > 0 && samples.every(({ pages }) => pages === 0));
  t.ok(samples.every(({ seconds }) => seconds > 0 && seconds < 1));
});

t.test("a section that QEMU's clock ended, or an early empty one, does not end the first copy", async (t) => {
  const { observer, section } = made(1000);
  for (let empty = 0; empty < 600; empty++) section([], 0);
  section(some(193), 50);
  t.equal(observer.firstCopySeconds, 0);
  section(some(63, 193), 50);
  t.equal(observer.firstCopySeconds, 0.1);
  t.equal(observer.workingSetPages, 0);
});

t.test("QEMU is not believed when it says in its first moments that nothing is dirty", async (t) => {
  const { observer, section } = made(200);
  section(some(256), 60);
  for (let look = 0; look < 600; look++) section([], 0.1);
  for (let look = 0; look < 13; look++) section(some(5), 50);
  t.match(observer.dirtySamples().at(-1), { pages: 5 });
});

t.test("a look at a guest that stands still is done when everything that QEMU has sent was read", async (t) => {
  const { clock, observer, section } = made(1000);
  let done = false;
  observer.done.promise.then(() => {
    done = true;
  });
  section(some(193), 50);
  observer.nothingMore();
  await undefined;
  t.notOk(done, "a part of the guest is still on its way");
  t.notOk(section(some(63, 193), 50), "nothing is read after this section");
  await clock.advance(READ_WITHIN_MS);
  await observer.done.promise;
  t.match(observer, { contentPages: 256, firstCopySeconds: 0.1, dirtiedPages: 0, observedSeconds: 0 });
});

t.test("a look at a guest that is paused meanwhile is done with what was seen", async (t) => {
  const { clock, observer, section, firstCopy } = made(10_000);
  firstCopy();
  for (let look = 0; look < 20; look++) section(some(10), 50);
  observer.nothingMore();
  await clock.advance(READ_WITHIN_MS);
  await observer.done.promise;
  t.ok(observer.observedSeconds > 0.5 && observer.observedSeconds <= 1, String(observer.observedSeconds));
  t.equal(observer.workingSetPages, 10);
});

t.test("a stream that is not this guest's, or that stops the guest, is a fault", async (t) => {
  const { observer } = made(1000);
  const block = { name: "pc.ram", byteLength: PAGE_SIZE, pageSize: PAGE_SIZE };
  t.throws(() => observer.layout({ blocks: [block], ramSectionId: 1, pagesAtOnce: 1 } as never), {
    code: "stream-unsupported",
  });
  t.throws(() => observer.stopped(), { code: "qemu-failed" });
});
