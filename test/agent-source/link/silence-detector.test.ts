/** Tests `SilenceDetector`: when a link counts as silent. */
import t from "tap";
import { ASK_EVERY_MS, SilenceDetector } from "../../../agent-source/link/silence-detector.ts";

t.test("a link is silent when several answers are missing, whatever the round trip is", async (t) => {
  for (const roundTripMs of [0, 1, 400]) {
    const detector = new SilenceDetector(1000);
    const answersIn = ASK_EVERY_MS + roundTripMs;
    t.notOk(detector.isSilent(1000 + answersIn, roundTripMs), "the detector has just begun");
    detector.heard(5000);
    t.notOk(detector.isSilent(5000 + 2 * answersIn, roundTripMs), "one answer is late");
    t.ok(detector.isSilent(5001 + 3 * answersIn, roundTripMs));
    detector.heard(9000);
    t.notOk(detector.isSilent(9000, roundTripMs), "the destination answers again");
  }
});
