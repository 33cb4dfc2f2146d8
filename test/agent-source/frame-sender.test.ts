/** What a destination may acknowledge. */
import t from "tap";
import { FrameSender } from "../../agent-source/frame-sender.ts";
import type { SenderParts } from "../../agent-source/sender-parts.ts";

t.test("what was never sent cannot be acknowledged, nor what was acknowledged be taken back", async (t) => {
  // no more than what is looked at before the refusal
  const sender = new FrameSender({ buffers: [] } as unknown as SenderParts);
  sender.stop();
  sender.sequence = 5;
  sender.sentBytes = 1000;
  const refused = { code: "peer-invalid" };
  t.throws(() => sender.acknowledge(6, 900), { ...refused, message: /acknowledged frame 6 after 0/ });
  t.throws(() => sender.acknowledge(-1, 0), refused);
  t.throws(() => sender.acknowledge(5, 1001), { ...refused, message: /acknowledged 1001 bytes of 1000/ });
  sender.ackedBytes = 500;
  t.throws(() => sender.acknowledge(5, 499), refused);
});
