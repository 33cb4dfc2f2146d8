import fc from "fast-check";
import t from "tap";
import { ActivePush, BEHIND_PAGES } from "../../../agent-source/postcopy/active-push.ts";
import { HeatMap } from "../../../shared/page/heat-map.ts";
import { PageSet } from "../../../shared/page/page-set.ts";
import { pageIndex } from "../../../shared/units.ts";

const PAGES = 2000;

function setUp({ aheadPages = 256, byHeat = true, awaits = (_page: number): boolean => true } = {}) {
  const awaited = new PageSet(PAGES);
  const asked = new PageSet(PAGES);
  const heat = new HeatMap(PAGES);
  for (let page = 0; page < PAGES; page++) if (awaits(page)) awaited.add(page);
  const pull = new ActivePush({ awaited, asked, heat, aheadPages, byHeat });
  const next = (pages: number): number[] => {
    const got: number[] = [];
    pull.next(pages, (first, count) => {
      for (let page = first; page < first + count; page++) got.push(page);
    });
    return got;
  };
  const warm = (page: number, arrivals: number): void => {
    for (let i = 0; i <= arrivals; i++) heat.arrive(pageIndex(page));
  };
  return { pull, awaited, asked, next, warm };
}

t.test("without a fault and without heat, in the order of memory", async (t) => {
  const { pull, next } = setUp({ awaits: (page) => page >= 10 && page % 2 === 0 });
  pull.begin();
  t.same(next(3), [10, 12, 14]);
  t.same(next(2), [16, 18]);
});

t.test("the hottest first, and what lies around a page that is waited for ahead of them", async (t) => {
  const { pull, next, warm } = setUp();
  warm(1500, 1);
  warm(1600, 3);
  pull.begin();
  t.same(next(2), [1600, 1500]);
  pull.fault(700);
  const around = next(16 + 1 + 32);
  t.equal(around[0], 700 - BEHIND_PAGES);
  t.equal(around.at(-1), 732);
  pull.fault(5);
  t.equal(next(1)[0], 0, "not from below the first page");
});

t.test("the further it walks the more is asked for ahead, up to a bound; a jump begins with little", async (t) => {
  const { pull, next } = setUp({ aheadPages: 100 });
  pull.begin();
  /** How many of what is asked for next follow one another behind the fault. */
  const ahead = (fault: number): number => {
    pull.fault(fault);
    const pages = next(120).filter((page) => page > fault);
    const end = pages.findIndex((page, index) => page !== fault + 1 + index);
    return end < 0 ? pages.length : end;
  };
  const walked = [1000];
  const found = [ahead(1000)];
  for (let turn = 0; turn < 3; turn++) {
    walked.push(walked.at(-1)! + found.at(-1)! + 1);
    found.push(ahead(walked.at(-1)!));
  }
  t.same(found, [32, 64, 100, 100]);
});

t.test("no page is asked for twice, and none that is not awaited; in the end all were", async () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ fault: fc.nat(PAGES - 1), pages: fc.integer({ min: 1, max: 400 }), arrive: fc.nat(300) })),
      fc.boolean(),
      (steps, byHeat) => {
        const { pull, awaited, next, warm } = setUp({ byHeat, awaits: (page) => page % 3 !== 0 });
        for (let page = 0; page < PAGES; page += 7) warm(page, page % 5);
        pull.begin();
        const seen = new Set<number>();
        const all: number[] = [];
        for (const { fault, pages, arrive } of [...steps, { fault: 0, pages: PAGES, arrive: 0 }]) {
          pull.fault(fault);
          for (const page of next(pages)) {
            if (seen.has(page) || page % 3 === 0) return false;
            seen.add(page);
            all.push(page);
          }
          for (const page of all.splice(0, arrive)) awaited.remove(page);
        }
        return seen.size === [...Array(PAGES).keys()].filter((page) => page % 3 !== 0).length;
      },
    ),
    { numRuns: 60 },
  );
});
