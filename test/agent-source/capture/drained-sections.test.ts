/** Tests `DrainedSections`: which sections of QEMU's stream have drained its dirty bitmap. */
import t from "tap";
import { DrainedSections } from "../../../agent-source/capture/drained-sections.ts";

t.test("a section that ends where QEMU looks at its clock does not count as one that drained the bitmap", async (t) => {
  const sections = new DrainedSections();
  t.same(
    [65, 129, 1, 70, 1, 0, 1].map((pages) => sections.next(pages)),
    [false, false, false, true, true, true, true],
    "a page that comes alone counts as all there was after a section that drained the bitmap",
  );
});

t.test("a section of one page counts as drained when the section before it had one page too", async (t) => {
  const sections = new DrainedSections();
  t.same([sections.next(1), sections.next(1)], [false, true]);
});
