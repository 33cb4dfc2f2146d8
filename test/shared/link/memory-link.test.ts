import t from "tap";
import { MigrationFault } from "../../../shared/fault.ts";
import { memoryTransfer } from "../../../shared/link/memory-link.ts";
import type { DestinationMessage, SourceMessage } from "../../../shared/protocol/messages.ts";

const ping = (nonce: number): SourceMessage => ({ kind: "clockPing", nonce });
const ack = (sequence: number): DestinationMessage => ({ kind: "ack", sequence, appliedBytes: 0 });

t.test("messages go both ways in order, and what came before the receiver was there is kept", async (t) => {
  const { source, destination } = memoryTransfer();
  const taken: number[] = [];
  for (let nonce = 0; nonce < 5; nonce++) source.send(ping(nonce), () => taken.push(nonce));
  t.same(taken, [], "nothing is taken before it was delivered");
  const got: SourceMessage[] = [];
  destination.receive((message) => {
    got.push(message);
    if (message.kind === "clockPing") destination.send(ack(message.nonce));
  });
  const acks: DestinationMessage[] = [];
  source.receive((message) => acks.push(message));
  source.close();
  t.equal(await source.closed, undefined);
  t.equal(await destination.closed, undefined);
  t.same(got, [0, 1, 2, 3, 4].map(ping));
  t.same(acks, [0, 1, 2, 3, 4].map(ack), "what the other side had sent arrives too");
  t.same(taken, [0, 1, 2, 3, 4]);
});

t.test("a paused receiver makes the sender wait until it resumes", async (t) => {
  const { source, destination } = memoryTransfer({ capacityMessages: 2 });
  const got: SourceMessage[] = [];
  destination.receive((message) => got.push(message));
  destination.pause();
  t.equal(source.send(ping(1)), true);
  t.equal(source.send(ping(2)), false);
  t.equal(source.send(ping(3)), false, "queued all the same");
  let mayGoOn = false;
  const drained = source.drained().then(() => {
    mayGoOn = true;
  });
  await Promise.resolve();
  t.equal(mayGoOn, false);
  t.same(got, []);
  destination.resume();
  await drained;
  await source.drained();
  t.same(got, [1, 2, 3].map(ping));
});

t.test("a fault of one side is what both sides see, and every buffer is given back", async (t) => {
  const { source, destination } = memoryTransfer();
  let taken = 0;
  source.send(ping(1), () => taken++);
  source.send(ping(2), () => taken++);
  destination.close(new MigrationFault("checksum-mismatch", "Frame 1 is damaged"));
  t.match(await source.closed, { code: "checksum-mismatch" });
  t.match(await destination.closed, { code: "checksum-mismatch" });
  t.equal(taken, 2);
  source.send(ping(3), () => taken++);
  t.equal(taken, 3, "a channel that is closed takes and drops");
  await source.drained();
});

t.test("what a handler throws closes the channel", async (t) => {
  const { source, destination } = memoryTransfer();
  destination.receive(() => {
    throw new MigrationFault("peer-invalid", "A frame out of order");
  });
  source.send(ping(1));
  t.match(await source.closed, { code: "peer-invalid", message: "A frame out of order" });
});

t.test("a cut is a lost peer for both, also for who waits for room", async (t) => {
  const { source, destination, cut } = memoryTransfer({ capacityMessages: 1 });
  source.send(ping(1));
  const waiting = source.drained();
  cut();
  await waiting;
  t.match(await source.closed, { code: "peer-lost" });
  t.match(await destination.closed, { code: "peer-lost" });
});

t.test("a capacity that holds no message is a mistake", async (t) => {
  t.throws(() => memoryTransfer({ capacityMessages: 0 }), RangeError);
});
