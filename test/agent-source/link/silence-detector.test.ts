import t from "tap";
import { ASK_EVERY_MS, SilenceDetector } from "../../../agent-source/link/silence-detector.ts";

t.test("a link is silent when several answers are missing, whatever the round trip", async (t) => {
  for (const roundTripMs of [0, 1, 400]) {
    const watch = new SilenceDetector(1000);
    const answersIn = ASK_EVERY_MS + roundTripMs;
    t.notOk(watch.isSilent(1000 + answersIn, roundTripMs), "just begun");
    watch.heard(5000);
    t.notOk(watch.isSilent(5000 + 2 * answersIn, roundTripMs), "one answer is late");
    t.ok(watch.isSilent(5001 + 3 * answersIn, roundTripMs));
    watch.heard(9000);
    t.notOk(watch.isSilent(9000, roundTripMs), "it is back");
  }
});
