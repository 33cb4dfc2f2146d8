/** Tests the frames of discards: they name the right pages, and hostile frames are refused. */
import fc from "fast-check";
import t from "tap";
import { DISCARD_FRAME_BYTES, encodeDiscards, readDiscards } from "../../../shared/codec/discard-frame.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { PageSet } from "../../../shared/page/page-set.ts";

const PAGES = 100_000;

t.test("the frames name the pages that are to be forgotten, and no others", async () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(PAGES - 1), fc.integer({ min: 1, max: 3000 }))), (ranges) => {
      const pages = new PageSet(PAGES);
      for (const [first, count] of ranges) pages.addRange(first, Math.min(count, PAGES - first));
      const read = new PageSet(PAGES);
      let named = 0;
      for (const body of encodeDiscards(pages))
        readDiscards(body, PAGES, (first, count) => {
          named += count;
          read.addRange(first, count);
        });
      return named === pages.size && read.size === pages.size && ranges.every(([first]) => read.has(first));
    }),
  );
});

t.test("a guest that wrote every other page takes several frames, each within its bound", async (t) => {
  const pages = new PageSet(PAGES);
  for (let page = 0; page < PAGES; page += 2) pages.add(page);
  const bodies = encodeDiscards(pages);
  t.ok(bodies.length > 1);
  t.ok(bodies.every(({ length }) => length <= DISCARD_FRAME_BYTES));
});

t.test("a frame of a hostile source is refused, or names only ranges of pages that exist", async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (body) => {
      try {
        readDiscards(body, 1000, (first, count) => {
          if (first < 0 || count < 1 || first + count > 1000) throw new Error(`${first} ${count}`);
        });
        return true;
      } catch (thrown) {
        return thrown instanceof MigrationFault && thrown.code === "peer-invalid";
      }
    }),
  );
});

t.test("empty ranges, cut numbers and numbers without end are refused", async (t) => {
  const refused: readonly (readonly [body: readonly number[], message: RegExp])[] = [
    [[5, 0], /a range of 0 pages from page 5/],
    [[0, 101], /a range of 101 pages from page 0 on, of 100/],
    [[99, 1, 0, 1], /a range of 1 pages from page 100 on/],
    [[5], /cut short/],
    [[0x80], /cut short/],
    [[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1], /too large/],
  ];
  for (const [body, message] of refused)
    t.throws(
      () => readDiscards(Uint8Array.from(body), 100, () => undefined),
      { code: "peer-invalid", message },
      body.join(),
    );
});
