/** Tests `AutoChoice`: which prospects speak for post-copy, and when they count. */
import t from "tap";
import { AutoChoice, type JudgedPlan, type Prospects } from "../../../agent-source/switchover/auto-choice.ts";

const ending: Prospects = {
  precopySeconds: 3,
  postcopySeconds: 2,
  dirtiedBytesPerSecond: 50e6,
  encodedBytesPerSecond: 5e6,
  linkBytesPerSecond: 4e6,
};
const endless: Prospects = { ...ending, precopySeconds: undefined };
const free: JudgedPlan = { deadlineMs: 0, onDeadline: "cancel" };

/** Gives what counts after the same prospects were foreseen for a second. */
function judged(prospects: Prospects | undefined, plan: JudgedPlan = free) {
  const choice = new AutoChoice(plan);
  for (let elapsedMs = 0; elapsedMs <= 1000; elapsedMs += 100) choice.foresee(prospects, elapsedMs);
  return choice.counts(1000);
}

t.test("post-copy is better where precopy has no end, or takes much longer", async (t) => {
  t.match(judged(endless), {
    isEndless: true,
    meets: true,
    found: /no end in sight: the guest dirties 50 MB\/s, 5\.0 MB\/s encoded, and the link carries 4\.0 MB\/s/,
  });
  t.match(judged({ ...ending, precopySeconds: 9 }), { isEndless: false, found: /another 9\.0 s$/ });
  t.equal(judged(ending), undefined, "precopy takes 1.5 times as long");
  t.equal(judged({ ...ending, precopySeconds: 1.9, postcopySeconds: 0.5 }), undefined, "1.4 s are not worth it");
  t.equal(judged(undefined), undefined);
});

t.test("a deadline speaks for post-copy if precopy misses it and post-copy meets it, both by a fifth", async (t) => {
  const cancel = (deadlineMs: number): JudgedPlan => ({ deadlineMs, onDeadline: "cancel" });
  const slow = { ...ending, precopySeconds: 6 };
  t.match(judged({ ...slow, precopySeconds: 5.5 }, cancel(4500)), { found: /5\.5 s, longer than the deadline allows/ });
  t.equal(judged({ ...slow, precopySeconds: 4 }, cancel(4500)), undefined, "precopy misses it by a seventh at most");
  t.equal(judged({ ...ending, precopySeconds: 3.9 }, { deadlineMs: 3500, onDeadline: "force" }), undefined);
  t.match(judged(endless, cancel(3000)), { isEndless: true, meets: false }, "post-copy would miss the deadline too");
});

t.test("prospects count when they were there for half a second, three times or more", async (t) => {
  const choice = new AutoChoice(free);
  for (const elapsedMs of [0, 100, 200, 300, 400]) choice.foresee(endless, elapsedMs);
  t.equal(choice.counts(400), undefined);
  choice.foresee({ ...ending, precopySeconds: 9 }, 500);
  t.match(choice.counts(500), { isEndless: false }, "it speaks for post-copy as well");
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
