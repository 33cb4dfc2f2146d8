/** Tests `AutoChoice`: which prospects speak for post-copy, and when they count. */
import t from "tap";
import { AutoChoice, type Prospects } from "../../../agent-source/switchover/auto-choice.ts";

const ending: Prospects = {
  precopySeconds: 3,
  postcopySeconds: 2,
  dirtiedBytesPerSecond: 5e6,
  linkBytesPerSecond: 100e6,
};
const endless: Prospects = { ...ending, precopySeconds: undefined };

/** Gives what counts after the same prospects were foreseen for a second. */
function judged(prospects: Prospects | undefined, deadlineMs = 0) {
  const choice = new AutoChoice({ deadlineMs });
  for (let elapsedMs = 0; elapsedMs <= 1000; elapsedMs += 100) choice.foresee(prospects, elapsedMs);
  return choice.counts(1000);
}

t.test("post-copy is better where precopy has no end, or takes much longer", async (t) => {
  t.match(judged(endless), { isEndless: true, found: /no end in sight: the guest dirties 5\.0 MB\/s/ });
  t.match(judged({ ...ending, precopySeconds: 9 }), { isEndless: false, found: /another 9\.0 s$/ });
  t.equal(judged(ending), undefined, "precopy takes 1.5 times as long");
  t.equal(judged({ ...ending, precopySeconds: 1.9, postcopySeconds: 0.5 }), undefined, "1.4 s are not worth it");
  t.equal(judged(undefined), undefined);
});

t.test("a deadline that precopy would miss speaks for post-copy, if post-copy meets it", async (t) => {
  t.match(judged(ending, 3100), { found: /another 3\.0 s, longer than the deadline allows/ });
  t.equal(judged(ending, 5000), undefined);
  t.equal(judged(endless, 2500), undefined, "post-copy would miss the deadline too");
});

t.test("prospects count when they were the same for half a second, three times or more", async (t) => {
  const choice = new AutoChoice({ deadlineMs: 0 });
  for (const elapsedMs of [0, 100, 200, 300, 400]) choice.foresee(endless, elapsedMs);
  t.equal(choice.counts(400), undefined);
  choice.foresee(endless, 500);
  t.ok(choice.counts(500));
  choice.foresee(ending, 600);
  t.equal(choice.counts(600), undefined, "an end is in sight after all");
  choice.foresee(endless, 700);
  choice.foresee(endless, 1300);
  t.equal(choice.counts(1300), undefined, "two are not enough, however long they have held");
  choice.foresee(endless, 1301);
  t.ok(choice.counts(1301));
  choice.foresee(undefined, 1400);
  t.equal(choice.counts(1400), undefined, "the link is down");
});
