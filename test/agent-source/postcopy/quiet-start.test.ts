/** Tests `QuietStart`: the moments in which only requested pages are sent. */
import t from "tap";
import { QuietStart } from "../../../agent-source/postcopy/quiet-start.ts";

t.test("only requested pages go for a moment after each of the first requests", async (t) => {
  const start = new QuietStart();
  t.equal(start.waitMs(100), 0, "the guest has asked for nothing yet");
  start.requested();
  t.equal(start.waitMs(100), 5);
  t.equal(start.waitMs(103), 2);
  start.requested();
  t.equal(start.waitMs(104), 5, "the time begins again with the next request");
  t.equal(start.waitMs(109), 0);
});

t.test("a guest that goes on asking gets other pages too", async (t) => {
  const start = new QuietStart();
  for (let request = 1; request <= 100; request++) start.requested();
  t.equal(start.waitMs(100), 5);
  t.equal(start.isOver, false);
  start.requested();
  t.equal(start.waitMs(101), 0);
  t.equal(start.isOver, true);
});
