/** Tests `Pacer`: the cap on the rate of encoded bytes. */
import t from "tap";
import { Pacer } from "../../../agent-source/send/pacer.ts";

t.test("without a cap nothing waits", async (t) => {
  const pacer = new Pacer(0);
  for (let i = 0; i < 10; i++) {
    pacer.sent(1e9);
    t.equal(pacer.waitMs(i), 0);
  }
});

t.test("a cap holds over any stretch of time, whatever the size of the frames", async (t) => {
  for (const frame of [1000, 262_144]) {
    const pacer = new Pacer(10e6);
    let now = 0;
    let sent = 0;
    while (now < 5000) {
      const wait = pacer.waitMs(now);
      if (wait > 0) {
        now += wait;
        continue;
      }
      pacer.sent(frame);
      sent += frame;
    }
    // the bound is five seconds, the bucket's 50 ms, and one frame that overdraws the bucket
    t.ok(sent <= 50e6 + 0.5e6 + frame, `${sent} bytes in frames of ${frame}`);
    t.ok(sent >= 0.95 * 50e6, "the rate that the cap allows is used");
  }
});
