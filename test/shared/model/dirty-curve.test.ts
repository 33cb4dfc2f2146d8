/** Tests the curves of how many different pages a guest dirties within a time. */
import fc from "fast-check";
import t from "tap";
import { curveOfSamples, DirtyWindows, faster } from "../../../shared/model/dirty-curve.ts";
import { curveOfGroups } from "../../support/dirty-groups.ts";

t.test("groups of pages are dirtied at their rates, and each page counts once", async (t) => {
  const curve = curveOfGroups([{ pages: 1000, timesPerSecond: 1 }]);
  t.equal(curve.pagesWithin(0), 0);
  t.ok(Math.abs(curve.pagesWithin(0.001) - 1) < 0.01, "one page is dirtied within a millisecond");
  t.ok(curve.pagesWithin(20) > 999.9 && curve.pagesWithin(1e9) <= 1000, "all pages are dirtied at last");
});

t.test("a curve meets its samples, joins them by straight lines, and goes on to all pages there are", async (t) => {
  const curve = curveOfSamples(
    [
      { seconds: 1, pages: 150 },
      { seconds: 0.1, pages: 100 },
    ],
    200,
  );
  t.equal(curve.pagesWithin(0.05), 50);
  t.equal(curve.pagesWithin(0.1), 100);
  t.equal(curve.pagesWithin(1), 150);
  t.ok(Math.abs(curve.pagesWithin(1.9) - 200) < 1e-9);
  t.equal(curve.pagesWithin(60), 200);
  t.equal(curveOfSamples([], 200).pagesWithin(60), 0);
});

t.test("a curve never decreases, whatever the samples are", async () => {
  const sample = fc.record({
    seconds: fc.double({ min: 0, max: 100, noNaN: true }),
    pages: fc.double({ min: 0, max: 1e6, noNaN: true }),
  });
  fc.assert(
    fc.property(
      fc.array(sample, { maxLength: 8 }),
      fc.array(fc.double({ min: 0, max: 300, noNaN: true })),
      (samples, at) => {
        const curve = curveOfSamples(samples, 1e6);
        const found = at.sort((one, other) => one - other).map((seconds) => curve.pagesWithin(seconds));
        return found.every((pages, index) => pages >= (found[index - 1] ?? 0) - 1e-6 && pages <= 1e6);
      },
    ),
    {
      numRuns: 2000,
      examples: [
        [
          [
            { seconds: 5e-324, pages: 1e6 },
            { seconds: 1e-323, pages: 1e6 },
          ],
          [0, 5e-324, 1],
        ],
      ],
    },
  );
});

t.test("a guest that is twice as fast dirties the same pages in half the time", async (t) => {
  const curve = curveOfSamples([{ seconds: 1, pages: 100 }], 100);
  t.equal(faster(curve, 2).pagesWithin(0.25), 50);
});

t.test("windows of about the same length are one sample, which follows the guest", async (t) => {
  const windows = new DirtyWindows();
  for (let now = 0; now < 5; now += 0.05) windows.note(0.05, 100, now);
  windows.note(2, 900, 5);
  t.match(windows.samples(5), [
    { seconds: 0.05, pages: 100 },
    { seconds: 2, pages: 900 },
  ]);
  for (let now = 5; now < 8; now += 0.05) windows.note(0.05, 300, now);
  t.ok(Math.abs(windows.samples(8)[0]!.pages - 300) < 1);
});

t.test("what was seen long ago is forgotten, and a long window later than a short one", async (t) => {
  const windows = new DirtyWindows();
  windows.note(0.05, 100, 0);
  windows.note(20, 900, 0);
  t.equal(windows.samples(9).length, 2);
  t.match(windows.samples(50), [{ pages: 900 }]);
  t.same(windows.samples(100), []);
  windows.note(0.05, 7, 100);
  t.match(windows.samples(100), [{ pages: 7 }], "the old sample is not mixed with the new one");
});

t.test("a window without a length does not count", async (t) => {
  const windows = new DirtyWindows();
  for (const seconds of [0, -1, Number.NaN]) windows.note(seconds, 100, 0);
  t.same(windows.samples(0), []);
});
