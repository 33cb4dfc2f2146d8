import t from "tap";
import { DrainedSections } from "../../../agent-source/capture/drained-sections.ts";

t.test("a section that ends where QEMU looks at its clock may have been ended by it", async (t) => {
  const sections = new DrainedSections();
  t.same(
    [65, 129, 1, 70, 1, 0, 1].map((pages) => sections.next(pages)),
    [false, false, false, true, true, true, true],
    "a lone page is all there was once nothing was left before",
  );
});

t.test("a lone page that comes again is all there is", async (t) => {
  const sections = new DrainedSections();
  t.same([sections.next(1), sections.next(1)], [false, true]);
});
