import t from "tap";
import { type Ack, AckBatcher } from "../../../agent-destination/replay/ack-batcher.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { eventually } from "../../support/bounded.ts";

function setUp() {
  const sent: Ack[] = [];
  const first = deferred<void>();
  const pace = new AckBatcher((ack) => {
    sent.push(ack);
    first.resolve();
  });
  return { pace, sent, first: first.promise };
}

const ack = (sequence: number, appliedBytes: number): Ack => ({ sequence, appliedBytes });

t.test("of acknowledgements that come close together the last goes, a moment later", async (t) => {
  const { pace, sent, first } = setUp();
  for (let sequence = 1; sequence <= 3; sequence++) pace.applied(ack(sequence, 1000 * sequence), "late");
  t.same(sent, []);
  await first;
  t.same(sent, [ack(3, 3000)]);
});

t.test("half a megabyte is acknowledged at once, and then counts anew", (t) => {
  const { pace, sent } = setUp();
  const half = 512 << 10;
  pace.applied(ack(1, half - 1), "late");
  pace.applied(ack(2, half), "late");
  pace.applied(ack(3, half + 1), "late");
  t.same(sent, [ack(2, half)]);
  pace.applied(ack(4, 2 * half), "late");
  t.same(sent, [ack(2, half), ack(4, 2 * half)]);
  t.end();
});

t.test("where little is on its way less of it waits, and not as long", async (t) => {
  const { pace, sent, first } = setUp();
  pace.applied(ack(1, 192 << 10), "soon");
  t.same(sent, [ack(1, 192 << 10)]);
  await first;
  pace.applied(ack(2, (192 << 10) + 1), "soon");
  t.equal(sent.length, 1);
  t.same(await eventually(() => sent[1], { timeoutMs: 20_000, what: "the last of them" }), ack(2, (192 << 10) + 1));
});

t.test("what somebody waits for goes at once, and what waited with it", (t) => {
  const { pace, sent } = setUp();
  pace.applied(ack(1, 10), "late");
  pace.applied(ack(2, 20), "at once");
  t.same(sent, [ack(2, 20)]);
  t.end();
});

t.test("what waits is forgotten when the stream begins anew, and bytes count from nothing", async (t) => {
  const { pace, sent, first } = setUp();
  pace.applied(ack(9, 1 << 20), "at once");
  await first;
  pace.applied(ack(10, (1 << 20) + 5), "late");
  pace.forget();
  pace.applied(ack(1, 512 << 10), "late");
  t.same(sent, [ack(9, 1 << 20), ack(1, 512 << 10)]);
});
