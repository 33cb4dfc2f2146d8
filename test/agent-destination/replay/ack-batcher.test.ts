/** Tests `AckBatcher`: which acknowledgements are sent, and when. */
import t from "tap";
import { type Ack, AckBatcher } from "../../../agent-destination/replay/ack-batcher.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { eventually } from "../../support/bounded.ts";

function setUp() {
  const sent: Ack[] = [];
  const first = deferred<void>();
  const batcher = new AckBatcher((ack) => {
    sent.push(ack);
    first.resolve();
  });
  return { batcher, sent, first: first.promise };
}

const ack = (sequence: number, appliedBytes: number): Ack => ({ sequence, appliedBytes });

t.test("of acknowledgements that come close together only the last is sent, a moment later", async (t) => {
  const { batcher, sent, first } = setUp();
  for (let sequence = 1; sequence <= 3; sequence++) batcher.applied(ack(sequence, 1000 * sequence), "late");
  t.same(sent, []);
  await first;
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
  const { batcher, sent, first } = setUp();
  batcher.applied(ack(1, 192 << 10), "soon");
  t.same(sent, [ack(1, 192 << 10)]);
  await first;
  batcher.applied(ack(2, (192 << 10) + 1), "soon");
  t.equal(sent.length, 1);
  t.same(
    await eventually(() => sent[1], { timeoutMs: 20_000, what: "the last acknowledgement" }),
    ack(2, (192 << 10) + 1),
  );
});

t.test("an acknowledgement for which the source waits is sent at once, with those that were gathered", (t) => {
  const { batcher, sent } = setUp();
  batcher.applied(ack(1, 10), "late");
  batcher.applied(ack(2, 20), "at once");
  t.same(sent, [ack(2, 20)]);
  t.end();
});

t.test("gathered acknowledgements are dropped when the stream begins again, and bytes count from zero", async (t) => {
  const { batcher, sent, first } = setUp();
  batcher.applied(ack(9, 1 << 20), "at once");
  await first;
  batcher.applied(ack(10, (1 << 20) + 5), "late");
  batcher.forget();
  batcher.applied(ack(1, 512 << 10), "late");
  t.same(sent, [ack(9, 1 << 20), ack(1, 512 << 10)]);
});
