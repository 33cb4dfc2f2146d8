/** Tests the heat of pages, and the lists of slots that are ordered by it. */
import fc from "fast-check";
import t from "tap";
import { classOf, HEAT_CLASSES, HeatMap } from "../../../shared/page/heat-map.ts";
import { BASE, PENDING, SlotLists } from "../../../shared/page/slot-lists.ts";
import { address, pageIndex } from "../../../shared/units.ts";

t.test("the first arrival adds no heat, each later one does, and an epoch halves the heat", async (t) => {
  const heat = new HeatMap(4);
  const page = pageIndex(1);
  t.equal(heat.arrive(page), 0);
  t.equal(heat.arrive(page), 32);
  t.equal(heat.arrive(page), 64);
  heat.fade();
  t.equal(heat.of(page), 32);
  for (let i = 0; i < 20; i++) heat.arrive(page);
  t.equal(heat.of(page), 255);
  for (let i = 0; i < 8; i++) heat.fade();
  t.equal(heat.of(page), 0);
  t.equal(heat.seenPages, 1);
  t.equal(
    heat.histogram().reduce((a, b) => a + b),
    1,
  );
});

t.test("an epoch moves every page down by exactly one class", async () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 255 }), (heat) => classOf(heat >> 1) === Math.max(0, classOf(heat) - 1)),
  );
});

t.test("cells give the mean heat of equal stretches of memory", async (t) => {
  const heat = new HeatMap(10);
  for (let i = 0; i < 3; i++) heat.arrive(pageIndex(2));
  t.same(heat.cells(0, 10, 5), { pagesPerCell: 2, heat: Uint8Array.of(0, 32, 0, 0, 0) });
});

t.test("slot lists keep the order that a plain model keeps, through any moves and fading", async () => {
  const move = fc.record({ kind: fc.nat(3), slot: fc.nat(15), heatClass: fc.nat(HEAT_CLASSES - 1), group: fc.nat(1) });
  fc.assert(
    fc.property(fc.array(move, { maxLength: 200 }), (moves) => {
      const lists = new SlotLists(address(0), 16);
      const model = [PENDING, BASE].map(() => Array.from({ length: HEAT_CLASSES }, (): number[] => []));
      const remove = (slot: number): void => {
        for (const group of model)
          for (const list of group) if (list.includes(slot)) list.splice(list.indexOf(slot), 1);
      };
      const taken = new Set<number>();
      for (const { kind, slot, heatClass, group: which } of moves) {
        const group = which === 0 ? PENDING : BASE;
        if (kind === 0) {
          const got = lists.take(group, heatClass, slot);
          if (got < 0 !== (taken.size === 16)) return false;
          if (got >= 0) {
            taken.add(got);
            model[group]![heatClass]!.push(got);
          }
        } else if (kind === 3) {
          lists.fade();
          for (const classes of model) {
            const merged = [...classes[0]!, ...classes[1]!];
            classes.splice(0, 2, merged);
            classes.push([]);
          }
        } else if (taken.has(slot)) {
          remove(slot);
          if (kind === 1) {
            lists.move(slot, group, heatClass);
            model[group]![heatClass]!.push(slot);
          } else {
            lists.free(slot);
            taken.delete(slot);
          }
        }
        for (const one of [PENDING, BASE] as const) {
          if (lists.coldest(one) !== (model[one]!.flat()[0] ?? -1)) return false;
          if (lists.hottest(one) !== (model[one]!.findLast((list) => list.length > 0)?.[0] ?? -1)) return false;
        }
      }
      return true;
    }),
    { numRuns: 300 },
  );
});
