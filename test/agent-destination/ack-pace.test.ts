import t from "tap";
import { type Ack, AckPace } from "../../agent-destination/ack-pace.ts";
import { deferred } from "../../shared/runtime/deferred.ts";

function setUp() {
  const sent: Ack[] = [];
  const first = deferred<void>();
  const pace = new AckPace((ack) => {
    sent.push(ack);
    first.resolve();
  });
  return { pace, sent, first: first.promise };
}

const ack = (sequence: number, appliedBytes: number): Ack => ({ sequence, appliedBytes });

t.test("of acknowledgements that come close together the last goes, a moment later", async (t) => {
  const { pace, sent, first } = setUp();
  for (let sequence = 1; sequence <= 3; sequence++) pace.applied(ack(sequence, 1000 * sequence), false);
  t.same(sent, []);
  await first;
  t.same(sent, [ack(3, 3000)]);
});

t.test("half a megabyte is acknowledged at once, and then counts anew", (t) => {
  const { pace, sent } = setUp();
  const half = 512 << 10;
  pace.applied(ack(1, half - 1), false);
  pace.applied(ack(2, half), false);
  pace.applied(ack(3, half + 1), false);
  t.same(sent, [ack(2, half)]);
  pace.applied(ack(4, 2 * half), false);
  t.same(sent, [ack(2, half), ack(4, 2 * half)]);
  t.end();
});

t.test("what somebody waits for goes at once, and what waited with it", (t) => {
  const { pace, sent } = setUp();
  pace.applied(ack(1, 10), false);
  pace.applied(ack(2, 20), true);
  t.same(sent, [ack(2, 20)]);
  t.end();
});

t.test("what waits is forgotten when the stream begins anew, and bytes count from nothing", async (t) => {
  const { pace, sent, first } = setUp();
  pace.applied(ack(9, 1 << 20), true);
  await first;
  pace.applied(ack(10, (1 << 20) + 5), false);
  pace.forget();
  pace.applied(ack(1, 512 << 10), false);
  t.same(sent, [ack(9, 1 << 20), ack(1, 512 << 10)]);
});
