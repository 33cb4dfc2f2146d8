/** Tests `AckBatcher`: which acknowledgements are sent, and when. */
import t from "tap";
import { type Ack, AckBatcher } from "../../../agent-destination/replay/ack-batcher.ts";
import { FakeClock } from "../../support/fake-clock.ts";

function setUp() {
  const clock = new FakeClock();
  const sent: Ack[] = [];
  return { clock, batcher: new AckBatcher((ack) => void sent.push(ack), clock), sent };
}

const ack = (sequence: number, appliedBytes: number): Ack => ({ sequence, appliedBytes });

t.test("of acknowledgements that come close together only the last is sent, 8 ms after the first", async (t) => {
  const { batcher, sent, clock } = setUp();
  for (let sequence = 1; sequence <= 3; sequence++) batcher.applied(ack(sequence, 1000 * sequence), "late");
  await clock.advance(7);
  t.same(sent, []);
  await clock.advance(1);
  t.same(sent, [ack(3, 3000)]);
});

t.test("half a megabyte is acknowledged at once, and then the bytes are counted from there", (t) => {
  const { batcher, sent } = setUp();
  const half = 512 << 10;
  batcher.applied(ack(1, half - 1), "late");
  batcher.applied(ack(2, half), "late");
  batcher.applied(ack(3, half + 1), "late");
  t.same(sent, [ack(2, half)]);
  batcher.applied(ack(4, 2 * half), "late");
  t.same(sent, [ack(2, half), ack(4, 2 * half)]);
  t.end();
});

t.test("where little is on its way, fewer bytes wait for their acknowledgement, and not as long", async (t) => {
  const { batcher, sent, clock } = setUp();
  batcher.applied(ack(1, 192 << 10), "soon");
  t.same(sent, [ack(1, 192 << 10)]);
  batcher.applied(ack(2, (192 << 10) + 1), "soon");
  await clock.advance(3);
  t.equal(sent.length, 1);
  await clock.advance(1);
  t.same(sent[1], ack(2, (192 << 10) + 1));
});

t.test("an acknowledgement for which the source waits is sent at once, with those that were gathered", (t) => {
  const { batcher, sent } = setUp();
  batcher.applied(ack(1, 10), "late");
  batcher.applied(ack(2, 20), "at once");
  t.same(sent, [ack(2, 20)]);
  t.end();
});

t.test("gathered acknowledgements are dropped when the stream begins again, and bytes count from zero", async (t) => {
  const { batcher, sent, clock } = setUp();
  batcher.applied(ack(9, 1 << 20), "at once");
  batcher.applied(ack(10, (1 << 20) + 5), "late");
  batcher.forget();
  batcher.applied(ack(1, 512 << 10), "late");
  await clock.advance(100);
  t.same(sent, [ack(9, 1 << 20), ack(1, 512 << 10)]);
});
