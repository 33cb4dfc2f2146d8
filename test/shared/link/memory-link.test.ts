/**
 * Tests the transfer stream inside one process, which other tests use, with the suite that every channel has to pass.
 */
import t from "tap";
import type { SourceMessage } from "../../../shared/protocol/stream-messages.ts";
import { channelCompliance } from "../../compliance/channel.ts";
import { memoryTransfer } from "../../support/memory-link.ts";

const ping = (nonce: number): SourceMessage => ({ kind: "clockPing", nonce });

channelCompliance(t, async (t) => {
  const pair = memoryTransfer();
  t.teardown(pair.cut);
  return pair;
});

t.test("a paused receiver makes the sender wait until it resumes", async (t) => {
  const { source, destination } = memoryTransfer({ capacityMessages: 2 });
  const got: SourceMessage[] = [];
  destination.receive((message) => got.push(message));
  destination.pause();
  t.equal(source.send(ping(1)), true);
  t.equal(source.send(ping(2)), false);
  t.equal(source.send(ping(3)), false, "the message is queued all the same");
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

t.test("a capacity that holds no message is a mistake", async (t) => {
  t.throws(() => memoryTransfer({ capacityMessages: 0 }), RangeError);
});
