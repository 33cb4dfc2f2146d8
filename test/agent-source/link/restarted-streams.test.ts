import t, { type Test } from "tap";
import { RestartedStreams } from "../../../agent-source/link/restarted-streams.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { ResumingSource } from "../../../shared/link/resume/resuming-source.ts";
import type { Hello, SourceMessage } from "../../../shared/protocol/messages.ts";
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
  const links = new RestartedStreams("beta");
  links.listen();
  t.teardown(() => links.take()?.close());
  return links;
}

/** @returns the generation that the destination is welcomed to, and its connection */
async function dial(links: RestartedStreams, given: Hello): Promise<{ generation: number; transfer: MemoryTransfer }> {
  const transfer = memoryTransfer();
  const first = new Promise<SourceMessage>((resolve) => transfer.destination.receive(resolve));
  links.accept(given, transfer.source);
  const message = await bounded(first, 5000, "a welcome");
  if (message.kind !== "welcome") throw new Error(`${message.kind} came first`);
  return { generation: message.generation, transfer };
}

t.test("nobody is let in before the guest runs at the destination, and may try again", async (t) => {
  const links = new RestartedStreams("beta");
  t.throws(() => links.accept(hello(), memoryTransfer().source), { code: "peer-lost" });
  t.equal(links.take(), undefined);
});

t.test("a stream that is begun anew is told of, and taken once", async (t) => {
  const links = listening(t);
  const { arrived } = links;
  const { generation } = await dial(links, hello());
  await bounded(arrived, 5000, "the link");
  t.ok(generation > 0, "another generation than the migration's first");
  const link = links.take();
  t.type(link, ResumingSource);
  t.equal(links.take(), undefined);
  t.not(links.arrived, arrived, "the next one is waited for anew");
  link?.close();
});

t.test("a connection that was lost is taken up in the same stream", async (t) => {
  const links = listening(t);
  const { generation, transfer } = await dial(links, hello());
  const link = links.take();
  transfer.cut();
  const again = await dial(links, hello({ attempt: 2, generation }));
  t.equal(again.generation, generation);
  t.equal(links.take(), undefined, "it is no new one");
  t.notOk(link?.isOver);
  link?.close();
});

t.test("a destination that has started again gets a stream of its own, and the one before is over", async (t) => {
  const links = listening(t);
  const { generation } = await dial(links, hello({ attempt: 7 }));
  const before = links.take();
  const again = await dial(links, hello({ attempt: 1, restarted: true }));
  t.not(again.generation, generation);
  t.match(await before?.closed, { code: "peer-lost" });
  t.ok(links.take());
});

t.test("a stream that is over is not taken up, but begun anew", async (t) => {
  const links = listening(t);
  const { generation } = await dial(links, hello());
  links.take()?.close(new MigrationFault("cancelled", "the test ends it"));
  t.not((await dial(links, hello({ attempt: 2, generation }))).generation, generation);
  t.ok(links.take());
});

t.test("a newer stream that was not taken replaces the one that waits", async (t) => {
  const links = listening(t);
  await dial(links, hello({ restarted: true }));
  const { generation } = await dial(links, hello({ restarted: true }));
  const link = links.take();
  t.equal(links.take(), undefined);
  const transfer = memoryTransfer();
  const welcomed = new Promise<SourceMessage>((resolve) => transfer.destination.receive(resolve));
  link?.attach(hello({ attempt: 2, generation }), transfer.source);
  t.match(await bounded(welcomed, 5000, "a welcome"), { kind: "welcome", generation });
  link?.close();
});

t.test("a dial-in is the migration's own as long as its stream lives and the destination knows of it", async (t) => {
  const known = new ResumingSource({ patienceMs: 1000, peer: "beta" });
  const links = listening(t);
  t.notOk(links.takes(hello(), known));
  t.ok(links.takes(hello({ restarted: true }), known));
  t.ok(links.takes(hello(), undefined), "this agent has started again");
  await dial(links, hello({ restarted: true }));
  t.ok(links.takes(hello(), known), "a stream was begun anew since");
  known.close(new MigrationFault("cancelled", "the test ends it"));
  t.ok(new RestartedStreams("beta").takes(hello(), known), "it is over");
});

t.test("at the end of the migration a stream that nobody has taken ends, and none is let in", async (t) => {
  const links = listening(t);
  const { transfer } = await dial(links, hello());
  links.end();
  const fault = await bounded(transfer.destination.closed, 5000, "the end of the stream");
  t.match(fault, { code: "peer-lost", message: /is over at its source/ });
  t.equal(links.take(), undefined);
  t.throws(() => links.accept(hello(), memoryTransfer().source), { code: "peer-lost" });
});
