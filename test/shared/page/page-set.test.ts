/** Tests `PageSet`: pages, ranges and bits go in and come out as they do with a plain set. */
import fc from "fast-check";
import t from "tap";
import { PageSet } from "../../../shared/page/page-set.ts";

/** Reads the ranges of a set, as its users do. */
function ranges(set: PageSet): [first: number, end: number][] {
  const found: [number, number][] = [];
  for (let page = set.next(0); page < set.pageCount; ) {
    const end = set.nextAbsent(page);
    found.push([page, end]);
    page = set.next(end);
  }
  return found;
}

t.test("pages are added and removed, and are counted", async (t) => {
  const set = new PageSet(100);
  t.equal(set.size, 0);
  t.ok(set.add(99));
  t.notOk(set.add(99));
  t.ok(set.has(99));
  t.notOk(set.has(98));
  t.equal(set.size, 1);
  t.ok(set.remove(99));
  t.notOk(set.remove(99));
  t.equal(set.size, 0);
});

t.test("a change of a range tells how many pages it changed, and ranges come out whole", async (t) => {
  const set = new PageSet(1000);
  t.equal(set.addRange(10, 100), 100);
  t.equal(set.addRange(50, 100), 40);
  t.equal(set.removeRange(64, 32), 32);
  t.equal(set.removeRange(64, 33), 1);
  t.equal(set.addRange(999, 1), 1);
  t.strictSame(ranges(set), [
    [10, 64],
    [97, 150],
    [999, 1000],
  ]);
  t.equal(set.size, 54 + 53 + 1);
  set.clear();
  t.strictSame(ranges(set), []);
});

t.test("a set with all its pages has one range, whatever their number", async (t) => {
  for (const count of [0, 1, 31, 32, 33, 64, 1000]) {
    const set = new PageSet(count);
    t.equal(set.addRange(0, count), count);
    t.strictSame(ranges(set), count === 0 ? [] : [[0, count]]);
  }
});

t.test("to change pages that do not exist is a mistake of the caller, and to ask for them is not", async (t) => {
  const set = new PageSet(33);
  t.throws(() => set.add(33), RangeError);
  t.throws(() => set.add(-1), RangeError);
  t.throws(() => set.addRange(0, 34), RangeError);
  t.throws(() => set.removeRange(30, -1), RangeError);
  t.notOk(set.has(33));
  t.notOk(set.has(1e6));
  t.notOk(set.remove(40));
  t.equal(set.next(33), 33);
});

t.test("a page set has the same pages as a plain set of numbers", async () => {
  const change = fc.tuple(fc.boolean(), fc.nat(199), fc.nat(199));
  fc.assert(
    fc.property(fc.array(change, { maxLength: 20 }), (changes) => {
      const set = new PageSet(200);
      const plain = new Set<number>();
      for (const [present, one, other] of changes) {
        const first = Math.min(one, other);
        const count = Math.abs(one - other) + 1;
        const before = plain.size;
        for (let page = first; page < first + count; page++) present ? plain.add(page) : plain.delete(page);
        const changed = present ? set.addRange(first, count) : set.removeRange(first, count);
        if (changed !== Math.abs(plain.size - before) || set.size !== plain.size) return false;
      }
      const pages = ranges(set).flatMap(([first, end]) => Array.from({ length: end - first }, (_, i) => first + i));
      return pages.join() === [...plain].sort((a, b) => a - b).join();
    }),
    { numRuns: 500 },
  );
});

t.test("bits go in and come out with the lowest first, and leave other pages alone", async (t) => {
  const set = new PageSet(100);
  set.addRange(0, 100);
  set.setBits(30, 20, Uint8Array.of(0b00000101, 0xff, 0b11110000));
  t.strictSame(ranges(set), [
    [0, 31],
    [32, 33],
    [38, 46],
    [50, 100],
  ]);
  t.equal(set.size, 31 + 1 + 8 + 50);
  t.strictSame([...set.bits(30, 20)], [0b00000101, 0xff, 0]);
  t.strictSame([...set.bits(50, 9)], [0xff, 1]);
  t.strictSame([...set.bits(100, 0)], []);
  t.throws(() => set.bits(99, 2), RangeError);
  t.throws(() => set.setBits(99, 2, Uint8Array.of(0)), RangeError);
  t.throws(() => set.setBits(0, 9, Uint8Array.of(0)), RangeError);
});

t.test("any bits of any pages come out as they went in", async () => {
  const place = fc.tuple(fc.nat(99), fc.uint8Array({ minLength: 13, maxLength: 13 }), fc.nat(100));
  fc.assert(
    fc.property(place, ([first, bits, most]) => {
      const count = Math.min(most, 100 - first);
      const set = new PageSet(100);
      set.addRange(7, 50);
      set.setBits(first, count, bits);
      const again = set.bits(first, count);
      for (let i = 0; i < 8 * again.length; i++) {
        const due = i < count && (bits[i >> 3]! & (1 << (i & 7))) !== 0;
        if (((again[i >> 3]! & (1 << (i & 7))) !== 0) !== due) throw new Error(`bit ${i} of ${count}`);
      }
      let members = 0;
      for (let page = 0; page < 100; page++) {
        members += set.has(page) ? 1 : 0;
        if ((page < first || page >= first + count) && set.has(page) !== (page >= 7 && page < 57))
          throw new Error(`page ${page}`);
      }
      if (members !== set.size) throw new Error(`${set.size} for ${members}`);
    }),
  );
});
