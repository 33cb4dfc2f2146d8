/** Tests the handshake over a real server, and what the suite for channels does not know of transfers. */
import { connect, createServer } from "node:net";
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { connectDestination, connectSource, dialSource } from "../../../../shared/link/grpc/grpc-link.ts";
import { serveDestination, serveSource } from "../../../../shared/link/grpc/grpc-server.ts";
import type { SourceChannel } from "../../../../shared/link/link.ts";
import { listenAt } from "../../../../shared/link/listen/clear-listener.ts";
import type { Offer } from "../../../../shared/protocol/messages.ts";
import type {
  DestinationMessage,
  Frame,
  SettleAnswer,
  SettleCall,
} from "../../../../shared/protocol/stream-messages.ts";
import { deferred } from "../../../../shared/runtime/deferred.ts";
import { LIMITS, openGrpcPair, portOf, SERVE, sourceService } from "../../../support/link.ts";
import { folder, hello, offer, refusal } from "../../../support/link-fixtures.ts";
import { Lines } from "../../../support/tls.ts";

t.test("a handshake is answered, is refused with reasons, fails, is too late, or is given up", async (t) => {
  const refusals = { kind: "refusals", refusals: refusal.refusals } as const;
  const answers = [
    async (asked: Offer) => {
      t.same(asked, offer);
      return refusals;
    },
    () => Promise.reject(new MigrationFault("stopping", "The agent is stopping")),
    () => deferred<never>().promise,
    () => deferred<never>().promise,
  ];
  const asked: SettleCall[] = [];
  const settle = async (call: SettleCall): Promise<SettleAnswer> => {
    asked.push(call);
    return { standing: "refused", reason: "given up" };
  };
  const listener = await serveDestination({ handshake: (one) => answers.shift()!(one), settle }, SERVE);
  const client = connectDestination(listener.address, LIMITS);
  t.teardown(() => {
    client.close();
    return listener.close(0);
  });
  const { answer, roundTripMs } = await client.handshake(offer, 5000);
  t.same(answer, refusals);
  t.ok(roundTripMs > 0, `${roundTripMs}`);
  await t.rejects(client.handshake(offer, 5000), { code: "stopping", message: "The agent is stopping" });
  await t.rejects(client.handshake(offer, 50), { code: "timeout" });
  const giveUp = new AbortController();
  const given = client.handshake(offer, 5000, giveUp.signal);
  giveUp.abort(new MigrationFault("cancelled", "By the operator"));
  await t.rejects(given, { code: "cancelled" });
  const call = {
    migrationId: "m-1",
    token: Buffer.from("secret"),
    epoch: 1,
    ask: "grant",
    paused: true,
  } as const;
  t.same(await client.settle(call, 5000), { standing: "refused", reason: "given up" });
  t.same(asked, [call]);
});

const frame = (sequence: number, body: Uint8Array): Frame => ({
  kind: "frame",
  sequence,
  frameKind: "pages",
  codec: "none",
  rawLength: body.length,
  checksum: Buffer.alloc(8, sequence),
  body,
});

t.test("a transfer also goes over a unix socket", async (t) => {
  const accepted = deferred<SourceChannel>();
  const listen = [`unix:${folder(t)}/source.sock`];
  const service = sourceService({
    acceptTransfer: (introduced, channel) => {
      t.match(introduced, { migrationId: "m-1", token: Buffer.from("secret") });
      accepted.resolve(channel);
    },
  });
  const listener = await serveSource(service, { ...SERVE, listen });
  t.teardown(() => listener.close(0));
  const destination = dialSource(listener.address, LIMITS);
  destination.send(hello);
  const source = await accepted.promise;
  const body = new Uint8Array(new SharedArrayBuffer(60_000)).fill(7);
  source.send(frame(1, body));
  source.close();
  destination.receive((message) => {
    t.equal(message.kind === "frame" && Buffer.compare(message.body, body), 0);
  });
  t.equal(await destination.closed, undefined);
  t.equal(await source.closed, undefined);
});

t.test("frames that are sent at once do not share a buffer", async (t) => {
  const { source, destination } = await openGrpcPair(t);
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

t.test("messages that come before anybody receives them are kept, in their order", async (t) => {
  const acks = Array.from({ length: 50 }, (_, sequence) => ({ kind: "ack", sequence, appliedBytes: 0 }) as const);
  const { source, destination } = await openGrpcPair(t);
  for (const message of acks) destination.send(message);
  destination.close();
  const got: DestinationMessage[] = [];
  source.receive((message) => got.push(message));
  t.equal(await source.closed, undefined);
  t.same(got, acks);
});

t.test("a peer that asks and does not read is cut off before its answers take memory", async (t) => {
  const { source, destination } = await openGrpcPair(t);
  // the source does not receive, so nothing takes what is sent to it
  let sent = 0;
  const ack = { kind: "ack", sequence: 1, appliedBytes: 0 } as const;
  const ended = destination.closed.then((fault) => {
    t.match(fault, { code: "peer-lost", message: /does not read/ });
    return true;
  });
  let over = false;
  void ended.then(() => {
    over = true;
  });
  for (; !over && sent < 200_000; sent++) {
    destination.send(ack);
    if (sent % 64 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await ended;
  // grpc-js keeps 1 MiB of messages that are not on their way yet, for retries, which are switched off
  t.ok(sent < 150_000, `${sent} acknowledgements`);
  t.match(await source.closed, { code: "peer-lost" });
});

for (const byHand of [true, false])
  t.test(
    `a connection that was made ahead is used to dial the source, or given up: ${byHand ? "by hand" : "by grpc-js"}`,
    async (t) => {
      const accepted = deferred<SourceChannel>();
      const service = sourceService({ acceptTransfer: (_, channel) => accepted.resolve(channel) });
      const listener = await serveSource(service, SERVE);
      t.teardown(() => listener.close(0));
      const left = connectSource(listener.address, { ...LIMITS, byHand });
      left.close();
      const destination = connectSource(listener.address, { ...LIMITS, byHand }).dial();
      destination.send(hello);
      const source = await accepted.promise;
      destination.receive(() => undefined);
      source.close();
      t.equal(await destination.closed, undefined);
      // nothing listens there, and only the stream says so
      const nobody = connectSource(`unix:${folder(t)}/nobody.sock`, { ...LIMITS, byHand });
      const dialled = nobody.dial();
      dialled.receive(() => undefined);
      t.match(await dialled.closed, { code: "peer-lost" });
    },
  );

t.test("once the client by hand has not understood a source, grpc-js makes the connections that follow", async (t) => {
  const lines = new Lines();
  const accepted = deferred<SourceChannel>();
  const service = sourceService({ acceptTransfer: (_, channel) => accepted.resolve(channel) });
  const listener = await serveSource(service, SERVE);
  t.teardown(() => listener.close(0));
  let strange = true;
  // a relay that puts a frame of its own ahead of everything that the source says
  const relay = createServer((near) => {
    const far = connect(portOf(listener), "127.0.0.1");
    if (strange) near.write(Buffer.from("00000008060000000012345678", "hex"));
    near.on("error", () => far.destroy()).on("close", () => far.destroy());
    far.on("error", () => near.destroy()).on("close", () => near.destroy());
    near.pipe(far).pipe(near);
  });
  t.teardown(() => relay.close());
  const port = await listenAt(relay, { port: 0, host: "127.0.0.1" });
  const security = { kind: "clear", insecure: true, log: lines.log } as const;
  const connection = connectSource(`127.0.0.1:${port}`, { ...LIMITS, security });
  const first = connection.dial();
  t.match(await first.closed, { code: "peer-lost", message: /HTTP\/2 is not understood/ });
  t.match(lines.all, [{ msg: "the next connection to the source is made by grpc-js" }]);
  strange = false;
  const second = connection.dial();
  t.not(second.constructor, first.constructor);
  second.send(hello);
  (await accepted.promise).close();
  second.receive(() => undefined);
  t.equal(await second.closed, undefined);
});
