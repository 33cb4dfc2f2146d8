/** Tests `Outages`: how many outages a connection had, and how long they lasted. */
import t from "tap";
import { Outages } from "../../../../shared/link/resume/outages.ts";

t.test(
  "an outage begins when the peer was last heard, as far back as keep-alive may have left it unnoticed",
  async (t) => {
    const one = new Outages(2000);
    t.equal(one.end(10_000), false, "the first connection ends no outage");
    one.heard(10_500);
    one.begin(11_700);
    t.equal(one.downForMs(11_900), 1400);
    t.equal(one.end(12_500), true);
    t.same(one.interruptions(20_000), { count: 1, downMs: 2000 });
    one.begin(30_000);
    t.equal(one.downForMs(30_000), 2000, "a peer may also have been silent because it was made to wait");
    t.same(one.interruptions(30_500), { count: 2, downMs: 4500 });
    t.equal(one.isDown, true);
  },
);

t.test("where it is not known how late a cut is noticed, the outage begins at that moment", async (t) => {
  const one = new Outages(0);
  one.heard(1000);
  one.begin(5000);
  t.equal(one.downForMs(5000), 0);
  t.equal(one.downForMs(5300), 300);
});
