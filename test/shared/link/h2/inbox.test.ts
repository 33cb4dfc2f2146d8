/** Tests that messages come out of data whole, once and in order, and that what waits is bounded. */
import t from "tap";
import { Inbox } from "../../../../shared/link/h2/inbox.ts";

const MAX = 300_000;

function prefixed(body: Buffer): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(body.length, 1);
  return Buffer.concat([prefix, body]);
}

/** Makes an inbox that notes what it hands on. `onMessage` is called with each message. */
function noting(onMessage: (inbox: Inbox) => void = () => undefined) {
  const noted = { messages: [] as Buffer[], slots: new Set<ArrayBufferLike>(), consumed: 0 };
  const inbox: Inbox = new Inbox(
    {
      message: (bytes) => {
        noted.messages.push(Buffer.from(bytes));
        noted.slots.add(bytes.buffer);
        onMessage(inbox);
      },
      consumed: (bytes) => {
        noted.consumed += bytes;
      },
    },
    MAX,
  );
  return { inbox, noted };
}

const bodies = (count: number, length: number): Buffer[] =>
  Array.from({ length: count }, (_, index) => Buffer.alloc(length, index + 1));

t.test("messages that are taken at once share one slot, however the data is cut", async (t) => {
  const sent = [...bodies(3, 1000), ...bodies(3, 60_000), Buffer.alloc(0)];
  const stream = Buffer.concat(sent.map(prefixed));
  for (const step of [1, 3, 1017, 16_384, stream.length]) {
    const { inbox, noted } = noting();
    inbox.release();
    for (let at = 0; at < stream.length; at += step) inbox.take(stream, at, Math.min(stream.length, at + step));
    t.ok(Buffer.concat(noted.messages).equals(Buffer.concat(sent)), `in pieces of ${step}`);
    t.equal(noted.messages.length, sent.length);
    t.equal(noted.slots.size, 1);
    t.equal(noted.consumed, stream.length, "everything is given back");
    t.notOk(inbox.isWithinMessage);
  }
});

t.test("messages wait while none are taken, keep their bytes, and are not given back before", async (t) => {
  const sent = [...bodies(4, 100_000), ...bodies(4, 10)];
  const stream = Buffer.concat(sent.map(prefixed));
  const { inbox, noted } = noting((inbox) => {
    if (noted.messages.length === 3) inbox.hold();
  });
  inbox.take(stream, 0, stream.length);
  t.equal(noted.messages.length, 0);
  t.equal(noted.consumed, 0);
  inbox.release();
  t.equal(noted.messages.length, 3, "the taker may stop in the middle");
  t.equal(noted.consumed, 3 * 100_005);
  inbox.release();
  t.ok(Buffer.concat(noted.messages).equals(Buffer.concat(sent)));
  t.equal(noted.consumed, stream.length);
  const before = noted.slots.size;
  inbox.hold();
  inbox.take(stream, 0, stream.length);
  inbox.release();
  t.equal(noted.messages.length, 16);
  t.ok(noted.slots.size <= before + 2, "the slots are used again");
});

t.test("a message that is too long or compressed is refused before anything is allocated", async (t) => {
  const { inbox } = noting();
  const long = Buffer.of(0, 0x7f, 0xff, 0xff, 0xff);
  t.throws(() => inbox.take(long, 0, 5), {
    code: "peer-invalid",
    message: "Received message larger than max (2147483647 vs 300000)",
  });
  t.throws(() => noting().inbox.take(Buffer.of(1, 0, 0, 0, 1), 0, 5), { code: "peer-lost", message: /compressed/ });
});

t.test("messages of no bytes cannot pile up", async (t) => {
  const { inbox } = noting();
  const empty = Buffer.alloc(5 * 8192);
  const fill = (): void => {
    for (let round = 0; round < 9; round++) inbox.take(empty, 0, empty.length);
  };
  t.throws(fill, { code: "peer-lost", message: /More than 65536 messages/ });
});

t.test("nothing is handed on after a stop, not even what came in the same piece", async (t) => {
  const { inbox, noted } = noting((inbox) => inbox.stop());
  inbox.release();
  const stream = Buffer.concat(bodies(3, 10).map(prefixed));
  inbox.take(stream, 0, stream.length);
  inbox.release();
  t.equal(noted.messages.length, 1);
});
