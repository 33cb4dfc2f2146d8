/**
 * Tests `RestartedStreams`: which dial-ins of post-copy get a new stream, and which resume the stream that there is.
 */
import t, { type Test } from "tap";
import { RestartedStreams } from "../../../agent-source/link/restarted-streams.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { ResumingSource } from "../../../shared/link/resume/resuming-source.ts";
import type { Hello, SourceMessage } from "../../../shared/protocol/stream-messages.ts";
import { bounded } from "../../support/bounded.ts";
import { type MemoryTransfer, memoryTransfer } from "../../support/memory-link.ts";

const hello = (changes: Partial<Hello> = {}): Hello => ({
  kind: "hello",
  migrationId: "m-1",
  token: Uint8Array.of(1),
  attempt: 1,
  received: 0,
  generation: 0,
  restarted: false,
  ...changes,
});

function listening(t: Test): RestartedStreams {
  const streams = new RestartedStreams("beta");
  streams.listen();
  t.teardown(() => streams.take()?.close());
  return streams;
}

/** Dials in as the destination. @returns the generation to which the destination is welcomed, and its connection */
async function dial(
  streams: RestartedStreams,
  given: Hello,
): Promise<{ generation: number; transfer: MemoryTransfer }> {
  const transfer = memoryTransfer();
  const first = new Promise<SourceMessage>((resolve) => transfer.destination.receive(resolve));
  streams.accept(given, transfer.source);
  const message = await bounded(first, 5000, "a welcome");
  if (message.kind !== "welcome") throw new Error(`${message.kind} came first`);
  return { generation: message.generation, transfer };
}

t.test("a destination that dials in before the guest runs there is told to dial again", async (t) => {
  const streams = new RestartedStreams("beta");
  t.throws(() => streams.accept(hello(), memoryTransfer().source), { code: "peer-lost" });
  t.equal(streams.take(), undefined);
});

t.test("a stream that begins again is announced, and can be taken once", async (t) => {
  const streams = listening(t);
  const { arrived } = streams;
  const { generation } = await dial(streams, hello());
  await bounded(arrived, 5000, "the stream");
  t.ok(generation > 0, "the generation differs from the first one of the migration");
  const stream = streams.take();
  t.type(stream, ResumingSource);
  t.equal(streams.take(), undefined);
  t.not(streams.arrived, arrived, "the next stream has a promise of its own");
  stream?.close();
});

t.test("a destination that dials again after a cut resumes the same stream", async (t) => {
  const streams = listening(t);
  const { generation, transfer } = await dial(streams, hello());
  const stream = streams.take();
  transfer.cut();
  const again = await dial(streams, hello({ attempt: 2, generation }));
  t.equal(again.generation, generation);
  t.equal(streams.take(), undefined, "there is no new stream");
  t.notOk(stream?.isOver);
  stream?.close();
});

t.test("a destination that has started again gets a stream of its own, and the stream before is over", async (t) => {
  const streams = listening(t);
  const { generation } = await dial(streams, hello({ attempt: 7 }));
  const before = streams.take();
  const again = await dial(streams, hello({ attempt: 1, restarted: true }));
  t.not(again.generation, generation);
  t.match(await before?.closed, { code: "peer-lost" });
  t.ok(streams.take());
});

t.test("a stream that is over is not resumed, but replaced by a new one", async (t) => {
  const streams = listening(t);
  const { generation } = await dial(streams, hello());
  streams.take()?.close(new MigrationFault("cancelled", "the test ends it"));
  t.not((await dial(streams, hello({ attempt: 2, generation }))).generation, generation);
  t.ok(streams.take());
});

t.test("a newer stream replaces one that waits and was not taken", async (t) => {
  const streams = listening(t);
  await dial(streams, hello({ restarted: true }));
  const { generation } = await dial(streams, hello({ restarted: true }));
  const stream = streams.take();
  t.equal(streams.take(), undefined);
  const transfer = memoryTransfer();
  const welcomed = new Promise<SourceMessage>((resolve) => transfer.destination.receive(resolve));
  stream?.attach(hello({ attempt: 2, generation }), transfer.source);
  t.match(await bounded(welcomed, 5000, "a welcome"), { kind: "welcome", generation });
  stream?.close();
});

t.test("a dial-in belongs to the migration's own stream while it lives and the destination knows of it", async (t) => {
  const known = new ResumingSource({ patienceMs: 1000, peer: "beta" });
  const streams = listening(t);
  t.notOk(streams.takes(hello(), known));
  t.ok(streams.takes(hello({ restarted: true }), known));
  t.ok(streams.takes(hello(), undefined), "the agent has started again, and has no stream of its own");
  await dial(streams, hello({ restarted: true }));
  t.ok(streams.takes(hello(), known), "a stream was begun again since");
  known.close(new MigrationFault("cancelled", "the test ends it"));
  t.ok(new RestartedStreams("beta").takes(hello(), known), "the migration's own stream is over");
});

t.test("at the end of the migration a stream that was not taken ends, and no dial-in is accepted", async (t) => {
  const streams = listening(t);
  const { transfer } = await dial(streams, hello());
  streams.end();
  const fault = await bounded(transfer.destination.closed, 5000, "the end of the stream");
  t.match(fault, { code: "peer-lost", message: /is over at its source/ });
  t.equal(streams.take(), undefined);
  t.throws(() => streams.accept(hello(), memoryTransfer().source), { code: "peer-lost" });
});
