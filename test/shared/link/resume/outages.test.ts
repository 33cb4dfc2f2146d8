import t from "tap";
import { Outages } from "../../../../shared/link/resume/outages.ts";

t.test(
  "a cut has lasted since the peer was last heard, as far back as keep-alive may have left it unnoticed",
  async (t) => {
    const one = new Outages(2000);
    t.equal(one.end(10_000), false, "the first connection ends no cut");
    one.heard(10_500);
    one.begin(11_700);
    t.equal(one.downForMs(11_900), 1400);
    t.equal(one.end(12_500), true);
    t.same(one.interruptions(20_000), { count: 1, downMs: 2000 });
    one.begin(30_000);
    t.equal(one.downForMs(30_000), 2000, "a peer that was silent all the while was made to wait");
    t.same(one.interruptions(30_500), { count: 2, downMs: 4500 });
    t.equal(one.isDown, true);
  },
);

t.test("where nobody says how late a cut is noticed, it begins then", async (t) => {
  const one = new Outages(0);
  one.heard(1000);
  one.begin(5000);
  t.equal(one.downForMs(5000), 0);
  t.equal(one.downForMs(5300), 300);
});
