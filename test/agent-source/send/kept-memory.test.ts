/** Tests that nothing of a guest is left in memory that a session leaves to the next one, and how long that stays. */
import fc from "fast-check";
import t from "tap";
import { KeptMemory } from "../../../agent-source/send/kept-memory.ts";
import { keepMemory } from "../../../agent-source/service/keep-memory.ts";
import { KERNEL_RESERVED_BYTES } from "../../../shared/page/kernel-memory.ts";
import type { PageKernels } from "../../../shared/page/kernels.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { address, pageIndex } from "../../../shared/units.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { sending, turn } from "../../support/sending.ts";

const BYTES = 64 << 20;

const isAll = ({ memory }: PageKernels, from: number, to: number, value: number): boolean =>
  Buffer.alloc(to - from, value).equals(memory.subarray(from, to));

t.test("a memory is kept for ten minutes, and every byte that was used is zero", async (t) => {
  const clock = new FakeClock();
  let forgotten = 0;
  const kept = new KeptMemory(clock, () => forgotten++);
  const kernels = loadKernels(BYTES);
  kernels.memory.fill(7, KERNEL_RESERVED_BYTES, 9 << 20);
  await kept.put(kernels, 9 << 20);
  t.equal(kept.bytes, 9 << 20);
  t.ok(isAll(kernels, KERNEL_RESERVED_BYTES, 10 << 20, 0));
  t.ok(kernels.isZero(address(KERNEL_RESERVED_BYTES)), "the kernels still work");
  await clock.advance(599_000);
  t.equal(kept.take(BYTES), kernels);
  t.equal(kept.take(BYTES), undefined, "one session has it");
  await kept.put(kernels, 0);
  await clock.advance(600_000);
  t.equal(forgotten, 1);
  t.same([kept.take(BYTES), kept.bytes], [undefined, 0]);
  t.equal(clock.pending, 0);
});

t.test("a memory that is too short is given up, and of two memories the later one is kept", async (t) => {
  const kept = new KeptMemory(new FakeClock(), () => undefined);
  const [one, other] = [loadKernels(BYTES), loadKernels(2 * BYTES)];
  await kept.put(one, 1);
  t.equal(kept.take(BYTES + 1), undefined);
  t.equal(kept.take(BYTES), undefined);
  await kept.put(one, 1);
  await kept.put(other, 1);
  t.equal(kept.take(BYTES), other);
});

t.test("memory is kept as the setting has it", async (t) => {
  const lines: object[] = [];
  const log = { info: (line: object) => void lines.push(line) };
  // what a page costs is measured with this clock
  const touching = (micros: number) => ({
    ...new FakeClock(),
    monotonicMs: (
      (now) => () =>
        (now += (micros * 1024) / 1000)
    )(0),
  });
  t.equal(keepMemory("off", new FakeClock(), log), undefined);
  t.ok(keepMemory("on", new FakeClock(), log) instanceof KeptMemory);
  t.ok(keepMemory("auto", touching(2.5) as FakeClock, log) instanceof KeptMemory);
  t.equal(keepMemory("auto", touching(1.5) as FakeClock, log), undefined);
  t.match(lines, [
    { microsAPage: "2.50", keeps: true },
    { microsAPage: "1.50", keeps: false },
  ]);
});

/** What the memory of the session before is full of here, in place of the zeros that it has. */
const POISON = 0xa5;
/** More than a session with so few pages uses. */
const POISONED_BYTES = 8 << 20;
const PAGES = 40;
/** What a session does next: a page comes, with a value or as zero, or everything that was sent has arrived. */
const STEP = fc.oneof(
  fc.record({ page: fc.nat(PAGES - 1), value: fc.integer({ min: 1, max: 0xa0 }) }),
  fc.record({ page: fc.nat(PAGES - 1), value: fc.constant(0) }),
  fc.constant("arrived" as const),
);

t.test("no frame has a byte of the session before, and all that a session wrote to is cleared", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(STEP, { maxLength: 120 }), async (steps) => {
      const { kernels, scheduler, sender, frames, capture, acknowledge } = sending({
        pageCount: PAGES,
        pendingSlots: 16,
        createKernels: (byteLength) => {
          const made = loadKernels(byteLength);
          made.memory.fill(POISON, KERNEL_RESERVED_BYTES, POISONED_BYTES);
          return made;
        },
      });
      for (const step of steps) {
        if (step === "arrived") acknowledge();
        else if (step.value === 0) scheduler.captureZero(pageIndex(step.page));
        else capture(step.page, step.value);
        sender.pump();
        await turn();
      }
      const poison = Buffer.alloc(8, POISON);
      if (frames.some(({ body }) => body.includes(poison))) return false;
      sender.stop();
      const { usedEnd } = scheduler.pages;
      const kept = new KeptMemory(new FakeClock(), () => undefined);
      await kept.put(kernels, usedEnd);
      const isCleared = isAll(kernels, KERNEL_RESERVED_BYTES, usedEnd, 0);
      return isCleared && isAll(kernels, usedEnd, POISONED_BYTES, POISON);
    }),
    { numRuns: 30 },
  );
});
