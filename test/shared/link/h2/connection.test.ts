/**
 * Tests a connection by hand against a server of node:http2, and against sockets that say what no server of the project
 * says: what is served, what is refused by name, and that windows, PINGs and ends keep their rules.
 */
import { once } from "node:events";
import type { ServerHttp2Stream } from "node:http2";
import fc from "fast-check";
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { goAwayFrame, pingFrame, prefaceFrames, windowUpdateFrame } from "../../../../shared/link/h2/frames.ts";
import { encodeHeaders } from "../../../../shared/link/h2/hpack.ts";
import { bounded, eventually } from "../../../support/bounded.ts";
import { openByHand, prefixed, SERVER_SETTINGS, serveHttp2, servePlain } from "../../../support/by-hand.ts";
import { FakeClock } from "../../../support/fake-clock.ts";

t.setTimeout(120_000);
const WITHIN = { timeoutMs: 20_000, everyMs: 2 };
const OK = { ":status": 200, "content-type": "application/grpc" };

/** Answers a stream, and ends it with trailers. */
function answer(stream: ServerHttp2Stream, trailers: Record<string, string>, ...messages: readonly Buffer[]): void {
  stream.respond(OK, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers(trailers));
  for (const message of messages) stream.write(message);
  stream.end();
}

t.test("messages of a server of node:http2 arrive, whatever their lengths, and its trailers are read", async (t) => {
  const lengths = [0, 1, 16_379, 16_384, 100_000, 1 << 20, 3];
  const sent = lengths.map((length, index) => Buffer.alloc(length, index + 1));
  const port = await serveHttp2(t, (stream) =>
    answer(stream, { "grpc-status": "0", "x-ein-langer-name": "Wert ~|^ <>" }, ...sent.map(prefixed)),
  );
  const { channel, got, take } = openByHand(t, port);
  take();
  t.equal(await bounded(channel.closed, WITHIN.timeoutMs, "the end"), undefined);
  t.equal(got.length, sent.length);
  t.ok(Buffer.concat(got).equals(Buffer.concat(sent)));
});

t.test("what is sent arrives in order, however small the windows of the server are", async (t) => {
  const bytes: Buffer[] = [];
  const port = await serveHttp2(t, (stream) => {
    stream.session?.settings({ initialWindowSize: 1000 });
    stream.on("data", (piece: Buffer) => bytes.push(piece));
    stream.on("end", () => answer(stream, { "grpc-status": "0" }));
  });
  const { channel, take } = openByHand(t, port);
  take();
  const sent = [10, 100_000, 0, 70_000].map((length, index) => Buffer.alloc(length, index + 1));
  const more = sent.map((message) => channel.send(message));
  t.equal(more[3], false, "the channel says that it is full");
  await bounded(channel.drained(), WITHIN.timeoutMs, "room");
  channel.close();
  t.equal(await bounded(channel.closed, WITHIN.timeoutMs, "the end"), undefined);
  t.ok(Buffer.concat(bytes).equals(Buffer.concat(sent.map(prefixed))));
});

t.test("a channel that is paused holds its server back within the window, and answers its PINGs", async (t) => {
  const window = 128 << 10;
  let written = 0;
  let pings = 0;
  const port = await serveHttp2(t, (stream) => {
    stream.respond(OK);
    const pump = (): void => {
      while (written < 600) if (!stream.write(prefixed(Buffer.alloc(10_000, ++written)))) break;
      if (written < 600) stream.once("drain", pump);
    };
    pump();
    const ping = (): void => void stream.session?.ping(() => ++pings < 50 && ping());
    ping();
  });
  const { channel, got, take } = openByHand(t, port, { receiveWindowBytes: window });
  take();
  channel.pause();
  await eventually(() => pings === 50 || undefined, { ...WITHIN, what: "the answers" });
  t.equal(got.length, 0);
  t.ok(written < 30, `${written} messages of 10 000 bytes were taken from the server`);
  channel.resume();
  await eventually(() => got.length === 600 || undefined, { ...WITHIN, what: "all messages" });
  t.ok(got.every((message, index) => message.length === 10_000 && message[7] === (index + 1) % 256));
  channel.close(new MigrationFault("cancelled", "enough"));
});

t.test("an orderly end waits behind the messages that a paused channel has not taken", async (t) => {
  const sent = [1, 2, 3].map((value) => Buffer.alloc(20_000, value));
  const port = await serveHttp2(t, (stream) => {
    answer(stream, { "grpc-status": "0" }, ...sent.map(prefixed));
    stream.on("close", () => stream.session?.close());
  });
  const { channel, got, take } = openByHand(t, port);
  let over = false;
  void channel.closed.then(() => {
    over = true;
  });
  for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
  t.equal(over, false);
  take();
  t.equal(await bounded(channel.closed, WITHIN.timeoutMs, "the end"), undefined);
  t.equal(got.length, 3);
});

const HEADERS = headers([":status", "200"]);

function headers(...fields: readonly (readonly [string, string])[]): Buffer {
  return framed(1, 4, 1, encodeHeaders(fields));
}

function framed(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

const trailers = (...fields: readonly (readonly [string, string])[]): Buffer => framed(1, 5, 1, encodeHeaders(fields));
const GOOD_END = trailers(["grpc-status", "0"]);

/** What a socket says, and the fault of the channel then. */
const SAID: readonly (readonly [what: string, said: readonly Buffer[], fault: object | undefined])[] = [
  ["a good end", [SERVER_SETTINGS, HEADERS, GOOD_END], undefined],
  ["an end by headers alone", [SERVER_SETTINGS, trailers([":status", "200"], ["grpc-status", "0"])], undefined],
  ["headers of 103 first", [SERVER_SETTINGS, headers([":status", "103"]), HEADERS, GOOD_END], undefined],
  ["GOAWAY ahead of a good end", [SERVER_SETTINGS, HEADERS, goAway(1), GOOD_END], undefined],
  ["the end that a source had not expected", [SERVER_SETTINGS, HEADERS, unexpected()], { message: /saw it end/ }],
  [
    "a fault that an agent names",
    [SERVER_SETTINGS, HEADERS, named("deadline")],
    { code: "deadline", message: "zu spät" },
  ],
  ["a fault of a later version", [SERVER_SETTINGS, HEADERS, named("later")], { code: "peer-failed" }],
  ["no status", [SERVER_SETTINGS, HEADERS, framed(0, 1, 1, Buffer.alloc(0))], { message: /without a status of gRPC/ }],
  ["a page of a proxy", [SERVER_SETTINGS, headers([":status", "502"])], { message: "Received HTTP status code 502" }],
  ["GOAWAY of no stream", [SERVER_SETTINGS, goAway(0)], { code: "peer-lost", message: /takes no stream/ }],
  ["a reset", [SERVER_SETTINGS, framed(3, 0, 1, Buffer.of(0, 0, 0, 2))], { message: /RST_STREAM with code 2/ }],
  ["a refusal", [SERVER_SETTINGS, framed(3, 0, 1, Buffer.of(0, 0, 0, 7))], { message: "Stream refused by server" }],
  ["a message that is too long", [SERVER_SETTINGS, HEADERS, data(Buffer.of(0, 9, 0, 0, 0))], { code: "peer-invalid" }],
];

function goAway(lastStream: number): Buffer {
  const frame = goAwayFrame(0);
  frame.writeUInt32BE(lastStream, 9);
  return frame;
}

function unexpected(): Buffer {
  return trailers(["grpc-status", "0"], ["ferry-unexpected-end", "1"]);
}

function named(code: string): Buffer {
  return trailers(["grpc-status", "4"], ["grpc-message", "zu%20sp%C3%A4t"], ["ferry-code", code]);
}

function data(payload: Buffer): Buffer {
  return framed(0, 0, 1, payload);
}

for (const [what, said, fault] of SAID)
  t.test(`a stream ends by ${what}`, async (t) => {
    const port = await servePlain(t, (socket) => socket.on("data", () => undefined).write(Buffer.concat(said)));
    const { channel, take, notUnderstood } = openByHand(t, port);
    take();
    const end = await bounded(channel.closed, WITHIN.timeoutMs, "the end");
    if (fault === undefined) t.equal(end, undefined);
    else t.match(end, { code: "peer-lost", ...fault });
    t.same(notUnderstood, []);
  });

/** What a socket says that is not understood, and the words for it. */
const WRONG: readonly (readonly [what: string, said: readonly Buffer[], words: RegExp])[] = [
  ["HTTP/1.1", [Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n")], /something else than HTTP\/2/],
  ["data ahead of headers", [SERVER_SETTINGS, data(prefixed(Buffer.alloc(9)))], /data ahead of headers/],
  ["headers twice", [SERVER_SETTINGS, HEADERS, HEADERS], /headers twice/],
  ["headers without a status", [SERVER_SETTINGS, headers(["x", "y"])], /headers without a status/],
  ["a compressed message", [SERVER_SETTINGS, HEADERS, data(Buffer.of(1, 0, 0, 0, 1, 7))], /a compressed message/],
  ["an end within a message", [SERVER_SETTINGS, HEADERS, data(Buffer.alloc(3)), GOOD_END], /ends within a message/],
  ["a window update of 0", [SERVER_SETTINGS, windowUpdateFrame(0, 0)], /a window update of 0/],
  ["a window beyond all", [SERVER_SETTINGS, windowUpdateFrame(0, 2 ** 31 - 1)], /beyond the largest window/],
  ["a first window beyond all", [prefaceFrames([[4, 2 ** 31]]).subarray(24)], /a window of 2147483648 bytes/],
  [
    "more than its window allows",
    [SERVER_SETTINGS, HEADERS, ...Array.from({ length: 20 }, () => data(Buffer.alloc(16_384)))],
    /more than its window allows/,
  ],
];

for (const [what, said, words] of WRONG)
  t.test(`${what} is not understood, the peer is told so, and grpc-js may try`, async (t) => {
    const heard: Buffer[] = [];
    const ended = new Promise<void>((resolve) => {
      void servePlain(t, (socket) => {
        socket.on("data", (bytes: Buffer) => heard.push(bytes)).on("close", () => resolve());
        socket.write(Buffer.concat(said));
      }).then((port) => {
        const { channel, notUnderstood } = openByHand(t, port);
        void channel.closed.then((fault) => {
          t.match(fault, { code: "peer-lost", message: words });
          t.match(notUnderstood, [words]);
        });
      });
    });
    await bounded(ended, WITHIN.timeoutMs, "the end of the connection");
    const last = Buffer.concat(heard).subarray(-17);
    t.equal(last[3], 7, "GOAWAY is the last frame");
    t.not(last.readUInt32BE(13), 0, "it has an error code");
  });

t.test("a peer that says nothing is lost within two periods, and one that says anything is not", async (t) => {
  for (const speaks of [false, true]) {
    const clock = new FakeClock();
    let socket: { write(bytes: Buffer): unknown } | undefined;
    let heard = Buffer.alloc(0);
    const port = await servePlain(t, (made) => {
      socket = made;
      made.on("data", (bytes: Buffer) => {
        heard = Buffer.concat([heard, bytes]);
      });
      made.write(SERVER_SETTINGS);
    });
    const { channel } = openByHand(t, port, { keepAliveMs: 1000 }, clock);
    const isAsked = (): true | undefined => heard.includes("ferry h2") || undefined;
    await eventually(() => heard.length > 100 || undefined, { ...WITHIN, what: "the request" });
    await clock.advance(999);
    t.equal(isAsked(), undefined);
    await clock.advance(1);
    await eventually(isAsked, { ...WITHIN, what: "a PING" });
    if (speaks) {
      const before = heard.length;
      socket?.write(pingFrame(Buffer.from("anything"), false));
      await eventually(() => heard.length > before || undefined, { ...WITHIN, what: "the answer" });
    }
    await clock.advance(1000);
    if (speaks) {
      let over = false;
      void channel.closed.then(() => {
        over = true;
      });
      for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
      t.equal(over, false);
    } else t.match(await channel.closed, { code: "peer-lost", message: "The peer does not answer" });
  }
});

t.test("a peer that asks and does not read is cut off", async (t) => {
  const port = await servePlain(t, (socket) => {
    socket.pause();
    socket.write(SERVER_SETTINGS);
    const pings = Buffer.concat(Array.from({ length: 4096 }, () => pingFrame(Buffer.alloc(8), false)));
    const pump = (): void => void (socket.destroyed || socket.write(pings, pump));
    pump();
  });
  const { channel } = openByHand(t, port);
  t.match(await bounded(channel.closed, 60_000, "the end"), { code: "peer-lost", message: "The peer does not read" });
});

t.test("whatever bytes a peer sends, the channel ends with a named fault or goes on", async (t) => {
  let said = Buffer.alloc(0);
  const port = await servePlain(t, (socket) => {
    socket.on("data", () => undefined);
    socket.end(said);
  });
  const good = Buffer.concat([SERVER_SETTINGS, HEADERS, data(prefixed(Buffer.alloc(50, 7))), GOOD_END]);
  const change = fc.tuple(fc.nat({ max: good.length - 1 }), fc.nat({ max: 255 }));
  const changed = fc.array(change, { maxLength: 3 }).map((changes) => {
    const bytes = Buffer.from(good);
    for (const [at, byte] of changes) bytes[at] = byte;
    return bytes;
  });
  const random = fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.concat([SERVER_SETTINGS, HEADERS, bytes]));
  await fc.assert(
    fc.asyncProperty(fc.oneof(changed, random), async (bytes) => {
      said = bytes;
      const { channel, take } = openByHand(t, port);
      take();
      const fault = await bounded(channel.closed, WITHIN.timeoutMs, "the end");
      return fault === undefined || fault.code !== "internal";
    }),
    { numRuns: 200 },
  );
  t.pass();
});

t.test("a connection that is not wanted any more is closed", async (t) => {
  const closed = new Promise<void>((resolve) => {
    void servePlain(t, (socket) => void once(socket.resume(), "close").then(() => resolve())).then((port) => {
      const { channel } = openByHand(t, port);
      channel.close();
      setImmediate(() => channel.close(new MigrationFault("cancelled", "enough")));
    });
  });
  await bounded(closed, WITHIN.timeoutMs, "the close");
});
