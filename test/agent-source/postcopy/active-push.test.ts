/** Tests `ActivePush`: in which order the source QEMU is asked for pages. */
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
  const push = new ActivePush({ awaited, asked, heat, aheadPages, byHeat });
  const next = (pages: number): number[] => {
    const got: number[] = [];
    push.next(pages, (first, count) => {
      for (let page = first; page < first + count; page++) got.push(page);
    });
    return got;
  };
  const warm = (page: number, arrivals: number): void => {
    for (let i = 0; i <= arrivals; i++) heat.arrive(pageIndex(page));
  };
  return { push, awaited, asked, next, warm };
}

t.test("without a fault and without heat, pages are asked for in the order of memory", async (t) => {
  const { push, next } = setUp({ awaits: (page) => page >= 10 && page % 2 === 0 });
  push.begin();
  t.same(next(3), [10, 12, 14]);
  t.same(next(2), [16, 18]);
});

t.test("the hottest pages are asked for first, and the pages around a fault before them", async (t) => {
  const { push, next, warm } = setUp();
  warm(1500, 1);
  warm(1600, 3);
  push.begin();
  t.same(next(2), [1600, 1500]);
  push.fault(700);
  const around = next(16 + 1 + 32);
  t.equal(around[0], 700 - BEHIND_PAGES);
  t.equal(around.at(-1), 732);
  push.fault(5);
  t.equal(next(1)[0], 0, "nothing is asked for below the first page");
});

t.test("the further the guest walks, the more is asked for ahead, up to a bound; a jump starts it again", async (t) => {
  const { push, next } = setUp({ aheadPages: 100 });
  push.begin();
  /** Counts how many of the pages that are asked for next follow the fault without a gap. */
  const ahead = (fault: number): number => {
    push.fault(fault);
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

t.test("no page is asked for twice, or without being awaited, and in the end all were asked for", async () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ fault: fc.nat(PAGES - 1), pages: fc.integer({ min: 1, max: 400 }), arrive: fc.nat(300) })),
      fc.boolean(),
      (steps, byHeat) => {
        const { push, awaited, next, warm } = setUp({ byHeat, awaits: (page) => page % 3 !== 0 });
        for (let page = 0; page < PAGES; page += 7) warm(page, page % 5);
        push.begin();
        const seen = new Set<number>();
        const all: number[] = [];
        for (const { fault, pages, arrive } of [...steps, { fault: 0, pages: PAGES, arrive: 0 }]) {
          push.fault(fault);
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
