/** Transfer streams between real ends, through a wire that can be cut. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import t from "tap";
import { MigrationFault } from "../../../shared/fault.ts";
import { dialSource } from "../../../shared/link/grpc-link.ts";
import { type ServeOptions, serveSource } from "../../../shared/link/grpc-server.ts";
import type { DestinationChannel, SourceChannel } from "../../../shared/link/link.ts";
import type { DestinationMessage, Frame, SourceMessage } from "../../../shared/protocol/messages.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { folder, hello, limits, onLoopback, refusal, service, type Test } from "../../support/link-fixtures.ts";

interface Pair {
  readonly source: SourceChannel;
  readonly destination: DestinationChannel;
  /** Of the wire between them. */
  cut(): void;
}

/** A transfer stream after its hello, through a wire that can be cut. */
async function transfer(t: Test, options: ServeOptions = onLoopback, follow: readonly DestinationMessage[] = []) {
  const accepted = deferred<SourceChannel>();
  const acceptTransfer = (_: unknown, channel: SourceChannel): void => accepted.resolve(channel);
  const listener = await serveSource(service({ acceptTransfer }), options);
  const wire = await relay(listener.address);
  const destination = dialSource(wire.address, limits);
  t.teardown(async () => {
    destination.close(new MigrationFault("cancelled", "The test is over"));
    wire.close();
    await listener.close(0);
  });
  for (const message of [hello, ...follow]) destination.send(message);
  const pair: Pair = { source: await accepted.promise, destination, cut: wire.close };
  return pair;
}

async function relay(address: string): Promise<{ address: string; close(): void }> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((near) => {
    const far = address.startsWith("unix:")
      ? connect(address.slice(5))
      : connect(Number(address.split(":")[1]), "127.0.0.1");
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on("error", () => other.destroy());
      socket.pipe(other);
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

const frame = (sequence: number, body: Uint8Array): Frame => ({
  kind: "frame",
  sequence,
  frameKind: "pages",
  codec: "none",
  rawLength: body.length,
  checksum: Buffer.alloc(8, sequence),
  body,
});

for (const way of ["loopback", "a unix socket"])
  t.test(
    `frames and acknowledgements pass in order over ${way}, and buffers may be used again when taken`,
    async (t) => {
      const listen = way === "loopback" ? onLoopback.listen : [`unix:${folder(t)}/source.sock`];
      const { source, destination } = await transfer(t, { ...onLoopback, listen });
      t.type(source.peer, "string");
      const frames = 100;
      const body = new Uint8Array(new SharedArrayBuffer(60_000));
      const faults: string[] = [];
      let expected = 1;
      destination.receive((message) => {
        if (message.kind !== "frame") return void faults.push(message.kind);
        if (message.sequence !== expected++) faults.push(`frame ${message.sequence} out of order`);
        if (message.body.some((byte) => byte !== message.sequence)) faults.push(`frame ${message.sequence} is damaged`);
        if (!destination.send({ kind: "ack", sequence: message.sequence, appliedBytes: 1 })) faults.push("no room");
      });
      const acks: number[] = [];
      const all = deferred<void>();
      source.receive((message) => {
        if (message.kind === "ack") acks.push(message.sequence);
        if (acks.length === frames) all.resolve();
      });
      for (let sequence = 1; sequence <= frames; sequence++) {
        body.fill(sequence);
        const taken = deferred<void>();
        const more = source.send(frame(sequence, body), taken.resolve);
        await taken.promise;
        if (!more) await source.drained();
      }
      await all.promise;
      t.same(faults, []);
      t.same(
        acks,
        Array.from({ length: frames }, (_, index) => index + 1),
      );
      destination.close();
      t.equal(await destination.closed, undefined);
      t.equal(await source.closed, undefined);
    },
  );

t.test("frames that are sent at once do not share a buffer", async (t) => {
  const { source, destination } = await transfer(t);
  const got: number[][] = [];
  destination.receive((message) => {
    if (message.kind === "frame") got.push([...message.body]);
  });
  for (let sequence = 1; sequence <= 12; sequence++)
    source.send(frame(sequence, Buffer.alloc(13 - sequence, sequence)));
  source.close();
  t.equal(await destination.closed, undefined);
  t.same(
    got,
    Array.from({ length: 12 }, (_, index) => new Array(12 - index).fill(index + 1)),
  );
});

t.test("messages that come before anybody receives them are kept in order", async (t) => {
  const acks = Array.from({ length: 50 }, (_, sequence) => ({ kind: "ack", sequence, appliedBytes: 0 }) as const);
  const { source, destination } = await transfer(t, onLoopback, acks);
  destination.close();
  const got: DestinationMessage[] = [];
  source.receive((message) => got.push(message));
  t.equal(await source.closed, undefined);
  t.same(got, acks);
});

t.test("a receiver that pauses stops the sender, and gets all of it when it resumes", async (t) => {
  const { source, destination } = await transfer(t);
  const got: SourceMessage[] = [];
  const first = deferred<void>();
  const frames = 400;
  destination.receive((message) => {
    got.push(message);
    if (got.length > 1) return;
    destination.pause();
    first.resolve();
  });
  const body = Buffer.alloc(100_000);
  let stopped = false;
  for (let sequence = 1; sequence <= frames; sequence++) stopped = !source.send(frame(sequence, body)) || stopped;
  await first.promise;
  t.ok(stopped, "the sender was told to wait");
  let drained = false;
  const room = source.drained().then(() => {
    drained = true;
  });
  // the other direction is not held up, and its answers come behind whatever was let through
  const heard = deferred<void>();
  source.receive(() => heard.resolve());
  destination.send({ kind: "ack", sequence: 1, appliedBytes: 0 });
  await heard.promise;
  t.equal(drained, false);
  t.equal(got.length, 1);
  destination.resume();
  await room;
  source.close();
  t.equal(await destination.closed, undefined);
  t.equal(got.length, frames);
});

t.test("a wire that is cut is a lost peer for both, and every buffer is given back", async (t) => {
  const { source, destination, cut } = await transfer(t);
  let taken = 0;
  const sent = 60;
  destination.receive(() => destination.pause());
  const all = deferred<void>();
  for (let sequence = 1; sequence <= sent; sequence++)
    source.send(frame(sequence, Buffer.alloc(100_000)), () => {
      if (++taken === sent) all.resolve();
    });
  const waiting = source.drained();
  cut();
  t.match(await source.closed, { code: "peer-lost" });
  t.match(await destination.closed, { code: "peer-lost" });
  await waiting;
  await all.promise;
  t.equal(taken, sent, "each once");
  t.equal(
    source.send(frame(99, Buffer.alloc(1)), () => taken++),
    true,
  );
  t.equal(taken, sent + 1, "what is sent into a closed channel too");
  await source.drained();
});

t.test("a source that gives up says why", async (t) => {
  const { source, destination } = await transfer(t);
  source.close(refusal);
  const { code, message, advice, refusals } = refusal;
  t.match(await destination.closed, { code, message, advice, refusals });
  t.match(await source.closed, { code, message });
});

t.test("a destination that gives up is lost to the source, and knows why itself", async (t) => {
  const { source, destination } = await transfer(t);
  destination.close(new MigrationFault("checksum-mismatch", "Frame 7 is damaged"));
  t.match(await destination.closed, { code: "checksum-mismatch", message: "Frame 7 is damaged" });
  t.match(await source.closed, { code: "peer-lost" });
});

t.test("what a handler throws closes the channel with that fault", async (t) => {
  const { source, destination } = await transfer(t);
  source.receive(() => {
    throw new MigrationFault("peer-invalid", "An acknowledgement of what was never sent");
  });
  destination.send({ kind: "ack", sequence: 5, appliedBytes: 0 });
  t.match(await destination.closed, { code: "peer-invalid", message: "An acknowledgement of what was never sent" });
  t.match(await source.closed, { code: "peer-invalid" });
});
