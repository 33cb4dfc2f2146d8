/** Tests `DirtyCensus`: how many different pages a guest dirties within a time of any length. */
import fc from "fast-check";
import t from "tap";
import { DirtyCensus } from "../../../shared/model/dirty-census.ts";

/** Counts the slow way: the mean of the different pages over all windows of so many epochs. */
function slowly(epochs: readonly (readonly number[])[], long: number): number {
  let sum = 0;
  for (let from = 0; from + long <= epochs.length; from++) sum += new Set(epochs.slice(from, from + long).flat()).size;
  return sum / (epochs.length - long + 1);
}

function counted(epochs: readonly (readonly number[])[], pageCount: number): DirtyCensus {
  const census = new DirtyCensus(pageCount);
  census.begin(10);
  epochs.forEach((pages, epoch) => {
    for (const page of pages) census.dirtied(page);
    census.nextEpoch(11 + epoch);
  });
  return census;
}

t.test("a loop over memory is recognised: all of its pages within a turn, and no new page after that", async (t) => {
  const epochs = Array.from({ length: 16 }, (_, epoch) => [0, 1, 2].map((page) => ((epoch % 4) * 3 + page) % 12));
  const census = counted(epochs, 100);
  t.same(census.samples(), [
    { seconds: 1, pages: 3 },
    { seconds: 2, pages: 6 },
    { seconds: 4, pages: 12 },
    { seconds: 8, pages: 12 },
    { seconds: 16, pages: 12 },
  ]);
  t.equal(census.pages, 12);
});

t.test("a page that is dirtied all the time counts once, and an epoch only where those before were seen", async (t) => {
  const census = counted([[5, 5], [5], [5, 9], [5]], 10);
  const [one, two, four] = census.samples();
  t.same(one, { seconds: 1, pages: 1.25 });
  t.equal(two?.pages.toFixed(2), "1.58", "page 9 is new in one of the three epochs that have an epoch before them");
  t.same(four?.seconds, 4);
});

t.test("the census agrees with counting every window, where every page has a steady interval", async () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ every: fc.integer({ min: 1, max: 4 }), phase: fc.nat({ max: 3 }) }), { maxLength: 12 }),
      (pages) => {
        const epochs = Array.from({ length: 24 }, (_, epoch) =>
          pages.flatMap(({ every, phase }, page) => ((epoch + phase) % every === 0 ? [page] : [])),
        );
        const samples = counted(epochs, 12).samples();
        return samples.every(
          ({ seconds, pages: found }) => Math.abs(found - slowly(epochs, seconds)) <= 1 + 0.1 * found,
        );
      },
    ),
  );
});

t.test("a longer window never has fewer pages, whatever was dirtied", async () => {
  fc.assert(
    fc.property(fc.array(fc.array(fc.nat({ max: 19 }), { maxLength: 30 }), { maxLength: 40 }), (epochs) => {
      const census = counted(epochs, 20);
      const samples = census.samples();
      return (
        census.pages === new Set(epochs.flat()).size &&
        samples.every(({ pages }, index) => pages >= (samples[index - 1]?.pages ?? 0) - 1e-9 && pages <= census.pages)
      );
    }),
  );
});

t.test("a guest that dirties more and more is never counted with more pages than it has", async (t) => {
  const census = counted([[], [], [], [], [0, 1, 6], [2, 3, 4, 5, 7, 8, 9, 10, 11]], 12);
  t.equal(census.samples().at(-1)?.pages, 12);
});

t.test("nothing is said before an epoch has ended, and the census ends when its epochs are used up", async (t) => {
  const census = new DirtyCensus(4);
  census.begin(1);
  t.same(census.samples(), []);
  t.equal(census.since(1.5), 0.5);
  let epochs = 1;
  while (census.nextEpoch(1 + epochs)) epochs++;
  t.equal(epochs, 4096);
  t.equal(
    census.samples().at(-1)?.seconds,
    4095,
    "an epoch that has not ended is not counted, and neither is its time",
  );
});
