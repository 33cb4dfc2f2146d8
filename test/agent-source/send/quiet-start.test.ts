import t from "tap";
import { QuietStart } from "../../../agent-source/send/quiet-start.ts";

t.test("a moment behind each of the first requests is theirs", async (t) => {
  const faults = new QuietStart();
  t.equal(faults.waitMs(0, 100), 0, "nobody has asked yet");
  t.equal(faults.waitMs(1, 100), 5);
  t.equal(faults.waitMs(1, 103), 2);
  t.equal(faults.waitMs(2, 104), 5, "and anew");
  t.equal(faults.waitMs(2, 109), 0);
});

t.test("a guest that goes on asking gets the push beside it", async (t) => {
  const faults = new QuietStart();
  t.equal(faults.waitMs(100, 100), 5);
  t.equal(faults.waitMs(101, 101), 0);
});
