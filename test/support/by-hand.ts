/** Opens channels by hand whose messages are bytes, to servers of a test: node:http2's, and plain sockets. */
import { createServer as createHttp2Server, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import { createServer, type Server, type Socket } from "node:net";
import { ChannelByHand } from "../../shared/link/h2/channel-by-hand.ts";
import { Connection } from "../../shared/link/h2/connection.ts";
import { prefaceFrames } from "../../shared/link/h2/frames.ts";
import type { LinkLimits } from "../../shared/link/link.ts";
import { termsFor } from "../../shared/link/tls/security.ts";
import { type Clock, systemClock } from "../../shared/runtime/clock.ts";

type Test = { teardown(done: () => unknown): unknown };

const LIMITS: LinkLimits = { receiveWindowBytes: 256 << 10, messageBytes: 1 << 20 };
const PATH = "/ferry.test/Bytes";

/** What a server says first: SETTINGS without the preface of a client. */
export const SERVER_SETTINGS: Buffer = prefaceFrames([]).subarray(24);

/** Puts a message behind gRPC's prefix. */
export function prefixed(body: Uint8Array): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(body.length, 1);
  return Buffer.concat([prefix, body]);
}

interface Opened {
  readonly channel: ChannelByHand<Buffer, Buffer>;
  /** What was delivered, once receive() was called by take(). */
  readonly got: Buffer[];
  /** The faults of a peer that was not understood. */
  readonly notUnderstood: string[];
  /** Begins to receive. */
  take(): void;
}

/** Opens a channel to a port of the loopback. It is closed at the end of the test. */
export function openByHand(
  t: Test,
  port: number,
  limits: Partial<LinkLimits> = {},
  clock: Clock = systemClock,
): Opened {
  const address = `127.0.0.1:${port}`;
  const terms = termsFor(address, { kind: "clear", insecure: true });
  const connection = new Connection({ address, terms, limits: { ...LIMITS, ...limits }, clock });
  const notUnderstood: string[] = [];
  const channel = new ChannelByHand<Buffer, Buffer>(connection, {
    method: { path: PATH, serialize: (bytes) => bytes, deserialize: (bytes) => Buffer.from(bytes) },
    dialled: terms.dialled,
    isSecure: false,
    onNotUnderstood: ({ message }) => notUnderstood.push(message),
  });
  t.teardown(() => connection.leave(0));
  const got: Buffer[] = [];
  return { channel, got, notUnderstood, take: () => channel.receive((message) => got.push(message)) };
}

async function listening(t: Test, server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.teardown(() => server.close());
  const address = server.address();
  if (address === null || typeof address === "string") throw new TypeError("no port");
  return address.port;
}

/** Serves with node:http2. @returns the port */
export async function serveHttp2(t: Test, onStream: (stream: ServerHttp2Stream) => void): Promise<number> {
  const sessions = new Set<ServerHttp2Session>();
  const server = createHttp2Server();
  server.on("session", (session) => sessions.add(session));
  server.on("stream", (stream) => {
    stream.on("error", () => undefined);
    onStream(stream);
  });
  t.teardown(() => {
    for (const session of sessions) session.destroy();
  });
  return await listening(t, server);
}

/** Serves plain sockets. @returns the port */
export async function servePlain(t: Test, onConnection: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    onConnection(socket);
  });
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
  });
  return await listening(t, server);
}
