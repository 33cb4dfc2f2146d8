/** Real servers and clients over loopback and unix sockets, with made-up services behind them. */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import t from "tap";
import { MigrationFault } from "../../../shared/fault.ts";
import { connectDestination, dialSource } from "../../../shared/link/grpc-link.ts";
import { type ServeOptions, serveDestination, serveSource } from "../../../shared/link/grpc-server.ts";
import type { DestinationChannel, SourceChannel, SourceService } from "../../../shared/link/link.ts";
import { GrpcOperatorClient } from "../../../shared/link/operator-client.ts";
import type { DestinationMessage, Frame, Offer, SourceMessage } from "../../../shared/protocol/messages.ts";
import type { MigrateCall, MigrationView } from "../../../shared/protocol/report.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { packageRoot } from "../../../shared/runtime/package-root.ts";
import { result, view } from "../../support/cli-fixtures.ts";

const limits = { receiveWindowBytes: 1 << 20, messageBytes: 1 << 20 };
const onLoopback: ServeOptions = { listen: ["127.0.0.1:0"], limits, insecure: false };
type Test = { teardown(done: () => unknown): unknown };

const call: MigrateCall = {
  guest: "web",
  to: "host-b:7412",
  options: {
    strategy: "precopy",
    downtimeTargetMs: 250,
    deadlineMs: 60_000,
    onDeadline: "force",
    bandwidthBytesPerSecond: 1e9,
    delta: false,
    reorder: true,
    compression: -20,
    verify: true,
  },
};

const refusal = new MigrationFault("refused", "host-b refuses web: 2 reasons", {
  advice: "Größeren Host nehmen – or free memory there",
  guestNow: "the guest runs at the source",
  refusals: [
    { code: "memory", message: "8 GiB needed, 4 GiB free" },
    { code: "machine-type-unknown", message: "pc-q35-11.0 is not known to QEMU 10.0 — 需要升级" },
  ],
});

const unexpected = (): never => {
  throw new MigrationFault("internal", "not expected");
};

/** What every method answers, unless a test says otherwise. */
const service = (methods: Partial<SourceService>): SourceService => ({
  listGuests: unexpected,
  plan: unexpected,
  migrate: unexpected,
  getMigration: unexpected,
  listMigrations: unexpected,
  watch: unexpected,
  cancel: unexpected,
  heatMap: unexpected,
  resolve: unexpected,
  acceptTransfer: unexpected,
  ...methods,
});

async function operatorOf(t: Test, methods: Partial<SourceService>, options: ServeOptions = onLoopback) {
  const listener = await serveSource(service(methods), options);
  const client = new GrpcOperatorClient(listener.address, 5000);
  t.teardown(() => {
    client.close();
    return listener.close(0);
  });
  return client;
}

/** A folder for sockets, with a path that is short enough. */
function folder(t: Test): string {
  const made = mkdtempSync(join(tmpdir(), "ferry-"));
  t.teardown(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

const never = (): AbortSignal => new AbortController().signal;

t.test("every question of an operator reaches the agent, and its answer the operator", async (t) => {
  const asked: unknown[] = [];
  const guests = [
    { name: "web", state: "off", detail: "", qemuVersion: "10.0.2", machineType: "q35", migrationId: "" },
  ];
  const plan = { accepted: false, refusals: refusal.refusals, negotiated: { codecs: "zstd" } };
  const moved = view({ status: "moved", result: result() });
  const answer =
    <Answer>(value: Answer) =>
    (...question: unknown[]): Answer => {
      asked.push(question);
      return value;
    };
  const client = await operatorOf(t, {
    listGuests: answer(Promise.resolve(guests)),
    plan: answer(Promise.resolve(plan)),
    getMigration: answer(moved),
    listMigrations: answer([moved, view()]),
    cancel: answer(Promise.resolve(view({ status: "cancelled" }))),
    heatMap: answer([{ name: "pc.ram", pagesPerCell: 512, cells: Buffer.from([0, 128, 255]) }]),
    resolve: answer(Promise.resolve(moved)),
  });
  t.same(await client.listGuests(), guests);
  t.same(await client.plan(call), plan);
  t.same(await client.getMigration("m-1"), moved);
  t.same(await client.listMigrations(), [moved, view()]);
  t.same(await client.cancel("m-2"), view({ status: "cancelled" }));
  t.same(await client.heatMap("web", 3), [{ name: "pc.ram", pagesPerCell: 512, cells: Buffer.from([0, 128, 255]) }]);
  t.same(await client.resolve("m-3", "destination"), moved);
  t.same(asked, [[], [call], ["m-1"], [], ["m-2"], ["web", 3], ["m-3", "destination"]]);
});

t.test("a fault of the agent is the operator's, with advice and every reason", async (t) => {
  const fail = (): never => {
    throw refusal;
  };
  const client = await operatorOf(t, {
    plan: fail,
    listGuests: async () => {
      throw new TypeError("a mistake");
    },
    migrate: fail,
    watch: fail,
    getMigration: fail,
  });
  const { code, message, advice, guestNow, refusals } = refusal;
  const expected = { code, message, advice, guestNow, refusals };
  await t.rejects(client.plan(call), expected);
  await t.rejects(client.getMigration("m-1"), expected);
  await t.rejects(client.migrate(call, unexpected, never()), expected);
  await t.rejects(client.watch("m-1", unexpected, never()), expected);
  await t.rejects(client.listGuests(), { code: "internal", message: "a mistake" });
});

t.test("an option that is not allowed is refused by name, with what is", async (t) => {
  const client = await operatorOf(t, {});
  const wrong = { ...call, options: { ...call.options, compression: 40 } };
  const expected = { code: "invalid-argument", message: /compression is "40"; it may be auto, off or a zstd level/ };
  await t.rejects(client.plan(wrong), expected);
  await t.rejects(client.migrate(wrong, unexpected, never()), expected);
});

t.test("a migration is watched from its start to its end", async (t) => {
  let observe: (view: MigrationView) => void = unexpected;
  let ended = 0;
  const calls: unknown[] = [];
  const client = await operatorOf(t, {
    migrate: async (asked) => {
      calls.push(asked);
      return "m-7";
    },
    watch: (id, observer) => {
      calls.push(id);
      observe = observer;
      observer(view({ id }));
      return () => ended++;
    },
  });
  const views: MigrationView[] = [];
  const over = client.migrate(
    call,
    (seen) => {
      views.push(seen);
      if (views.length === 1) observe(view({ id: "m-7", status: "moved", result: result() }));
    },
    never(),
  );
  await over;
  t.same(calls, [call, "m-7"]);
  t.same(views, [view({ id: "m-7" }), view({ id: "m-7", status: "moved", result: result() })]);
  t.equal(ended, 1);
});

t.test("an operator who goes away ends the watch, not the migration", async (t) => {
  const unwatched = deferred<void>();
  const client = await operatorOf(t, {
    migrate: async () => "m-1",
    watch: (_, observer) => {
      observer(view());
      return () => unwatched.resolve();
    },
    getMigration: () => view({ status: "copying" }),
  });
  const leaving = new AbortController();
  await client.migrate(call, () => leaving.abort(), leaving.signal);
  await unwatched.promise;
  t.equal((await client.getMigration("m-1")).status, "copying");
});

t.test("a migration whose operator left while it was started goes on unwatched", async (t) => {
  const asked = deferred<void>();
  const started = deferred<string>();
  let watched = 0;
  const client = await operatorOf(t, {
    migrate: () => {
      asked.resolve();
      return started.promise;
    },
    watch: (_, observer) => {
      watched++;
      observer(view({ status: "moved" }));
      return () => undefined;
    },
    listMigrations: () => [],
  });
  const leaving = new AbortController();
  const over = client.migrate(call, unexpected, leaving.signal);
  await asked.promise;
  leaving.abort();
  await over;
  await client.listMigrations(); // behind the cancellation on the same connection
  started.resolve("m-1");
  await client.listMigrations();
  t.equal(watched, 0);
});

t.test("an agent that nobody answers for is unreachable; one that goes away is lost", async (t) => {
  const nobody = new GrpcOperatorClient(`unix:${folder(t)}/nobody.sock`, 5000);
  await t.rejects(nobody.listGuests(), { code: "peer-unreachable" });
  nobody.close();
  const listener = await serveSource(
    service({
      watch: (_, observer) => {
        observer(view());
        return () => undefined;
      },
    }),
    onLoopback,
  );
  const client = new GrpcOperatorClient(listener.address, 5000);
  await t.rejects(
    client.watch("m-1", () => void listener.close(0), never()),
    { code: "peer-lost" },
  );
  client.close();
});

const offer: Offer = {
  protocolVersions: [1],
  migrationId: "m-1",
  token: Buffer.from("secret"),
  sourceAddress: "127.0.0.1:7411",
  dryRun: false,
  guest: {
    name: "web",
    definitionDigest: "00ff",
    machineType: "pc-q35-10.0",
    qemuVersion: { major: 10, minor: 0, micro: 2 },
    cpuModel: "qemu64-x86_64-cpu",
    cpuFeatures: { "1.ecx": 0xffffffff },
    ramBlocks: [{ name: "pc.ram", byteLength: 2 ** 33, pageSize: 4096 }],
  },
  transfer: {
    codecs: ["xbzrle", "zstd"],
    downtimeTargetMs: 300,
    deadlineMs: 0,
    onDeadline: "cancel",
    frameBytes: 262_144,
    creditWindowBytes: 8 << 20,
    verify: false,
  },
};

t.test("a handshake is answered, refused by reasons, fails, is too late or given up", async (t) => {
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
  const listener = await serveDestination({ handshake: (asked) => answers.shift()!(asked) }, onLoopback);
  const client = connectDestination(listener.address, limits);
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
});

interface Pair {
  readonly source: SourceChannel;
  readonly destination: DestinationChannel;
  /** Of the wire between them. */
  cut(): void;
}

const hello: DestinationMessage = { kind: "hello", migrationId: "m-1", token: Buffer.from("secret") };

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

t.test("a stream without a hello is refused, as is a hello that nobody waits for", async (t) => {
  const acceptTransfer = (): never => {
    throw new MigrationFault("migration-unknown", "No migration waits for m-1");
  };
  const listener = await serveSource(service({ acceptTransfer }), { ...onLoopback, helloWithinMs: 20 });
  t.teardown(() => listener.close(0));
  const silent = dialSource(listener.address, limits);
  t.match(await silent.closed, { code: "refused", message: /did not introduce itself within 20 ms/ });
  const rude = dialSource(listener.address, limits);
  rude.send({ kind: "ack", sequence: 1, appliedBytes: 0 });
  t.match(await rude.closed, { code: "peer-invalid" });
  const stranger = dialSource(listener.address, limits);
  stranger.send(hello);
  t.match(await stranger.closed, { code: "migration-unknown" });
  const nobody = dialSource(`unix:${folder(t)}/nobody.sock`, limits);
  t.match(await nobody.closed, { code: "peer-lost" });
});

t.test("nothing but loopback is served in clear, unless that was allowed", async (t) => {
  const listen = ["0.0.0.0:0"];
  await t.rejects(serveDestination({ handshake: unexpected }, { ...onLoopback, listen }), { code: "configuration" });
  const allowed = await serveDestination({ handshake: unexpected }, { listen, limits, insecure: true });
  t.match(allowed.address, /^0\.0\.0\.0:[1-9]/);
  await allowed.close(0);
});

t.test("an address that is taken is not taken over; a socket that was left behind is", async (t) => {
  const path = join(folder(t), "source.sock");
  const options = { ...onLoopback, listen: [`unix:${path}`] };
  const first = await serveSource(service({ listMigrations: () => [] }), options);
  t.equal(first.address, `unix:${path}`);
  await t.rejects(serveSource(service({}), options), { code: "configuration" });
  const client = new GrpcOperatorClient(first.address, 5000);
  t.same(await client.listMigrations(), [], "the first is still there");
  client.close();
  await first.close(0);
  const file = `${path}.txt`;
  writeFileSync(file, "no socket");
  await t.rejects(serveSource(service({}), { ...onLoopback, listen: [`unix:${file}`] }), { code: "configuration" });
});

t.test("a general client finds the services, and their health, by reflection", async (t) => {
  const guests = [
    { name: "web", state: "off", detail: "", qemuVersion: "10.0.2", machineType: "q35", migrationId: "" },
  ];
  const source = await serveSource(service({ listGuests: async () => guests }), onLoopback);
  const destination = await serveDestination({ handshake: unexpected }, onLoopback);
  t.teardown(() => Promise.all([source.close(0), destination.close(0)]));
  const buf = join(packageRoot(), "node_modules/.bin/buf");
  const curl = async (address: string, ...words: string[]): Promise<string> => {
    const flags = ["curl", "--protocol", "grpc", "--http2-prior-knowledge"];
    const [path = "", ...rest] = words;
    return (await promisify(execFile)(buf, [...flags, `http://${address}${path}`, ...rest])).stdout;
  };
  const atSource = await curl(source.address, "", "--list-methods");
  for (const method of ["MigrationService/Migrate", "MigrationService/Plan", "TransferService/Transfer"])
    t.ok(atSource.includes(`ferry.v1.${method}`), method);
  t.ok(atSource.includes("grpc.health.v1.Health/Check"));
  t.match(await curl(source.address, "/grpc.health.v1.Health/Check", "-d", "{}"), /"status":\s*"SERVING"/);
  const listed = await curl(source.address, "/ferry.v1.MigrationService/ListGuests", "-d", "{}");
  t.match(JSON.parse(listed), { guests: [{ name: "web", qemuVersion: "10.0.2" }] });
  const atDestination = await curl(destination.address, "", "--list-methods");
  t.ok(atDestination.includes("ferry.v1.DestinationService/Handshake"));
  t.ok(atDestination.includes("grpc.health.v1.Health/Check"));
});
