/**
 * The server that strangers meet over TLS: callers without a good certificate, or with one that is on no list. It
 * speaks HTTP/2, but can only refuse a call with the reason (docs/design/security.md#strangers-do-not-reach-grpc-js)
 * and tell the health of a service. A refusal ends the connection. Nothing of such a caller reaches gRPC's library,
 * which parses everything that it gets and bounds little of it.
 */
import { createServer, type Http2Session, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import type { Duplex } from "node:stream";
import { type Metadata, status } from "@grpc/grpc-js";
import { service as health } from "grpc-health-check";
import { MigrationFault } from "../../fault.ts";
import type { Clock } from "../../runtime/clock.ts";
import { toStatus } from "../wire/status.ts";

export interface StrangerDoor {
  /** Takes the connection of a stranger after its TLS handshake. */
  receive(connection: Duplex): void;
  /** Cuts the connections that are still open. */
  cut(): void;
}

/** Tells why the stranger behind `session` may not call `path`; undefined where it may. */
export type Judge = (session: Http2Session, path: string) => MigrationFault | undefined;

/** Tells the health of a service. @returns undefined for a service that the agent does not have */
export type Health = (service: string) => "SERVING" | "NOT_SERVING" | undefined;

/**
 * The most calls over one connection. More looks at the health are of no use within the life of a stranger's
 * connection.
 */
const LOOKS_MAX = 4;
/** How long the last answer may take to reach its caller, milliseconds. */
const LINGER_MS = 2000;
/** The longest request, bytes: five bytes before the message, and the name of a service. */
const REQUEST_BYTES_MAX = 256;
const CHECK = "/grpc.health.v1.Health/Check";
const OK = { ":status": 200, "content-type": "application/grpc+proto" };

/** Opens the server. `judge` decides about each call, and `healthOf` tells the health. */
export function openStrangerDoor(judge: Judge, healthOf: Health, clock: Clock): StrangerDoor {
  const sessions = new Map<Http2Session, number>();
  const server = createServer({
    maxSessionMemory: 1,
    maxHeaderListPairs: 64,
    settings: { maxConcurrentStreams: LOOKS_MAX, maxHeaderListSize: 8 << 10, initialWindowSize: 16 << 10 },
  });
  server.on("session", (session) => {
    sessions.set(session, 0);
    session.on("error", () => session.destroy());
    session.once("close", () => sessions.delete(session));
  });
  // the caller does not speak HTTP/2
  server.on("sessionError", (_, session) => session.destroy());
  server.on("stream", (stream, headers) => {
    const { session } = stream;
    stream.on("error", () => stream.destroy());
    if (session === undefined) return;
    const looks = (sessions.get(session) ?? 0) + 1;
    sessions.set(session, looks);
    const path = String(headers[":path"] ?? "").slice(0, 200);
    const fault = judge(session, path) ?? (path === CHECK ? undefined : noWatch());
    if (fault === undefined) void tellHealth(stream, headers, healthOf);
    else refuse(stream, toStatus(fault));
    if (fault !== undefined || looks >= LOOKS_MAX) finish(session, clock);
  });
  return {
    receive: (connection) => void server.emit("connection", connection),
    cut: () => {
      for (const session of sessions.keys()) session.destroy();
    },
  };
}

const noWatch = (): MigrationFault =>
  new MigrationFault("not-authorised", "Only Health/Check is open to a caller without a certificate that is listed", {
    advice: "Call grpc.health.v1.Health/Check",
  });

/**
 * Ends a session: it takes no call any more, and is cut if the caller has not taken the last answer within LINGER_MS.
 */
function finish(session: Http2Session, clock: Clock): void {
  if (session.closed) return;
  session.close();
  clock.after(LINGER_MS, () => session.destroy()).unref();
}

function refuse(
  stream: ServerHttp2Stream,
  { code, details, metadata }: { code: status; details: string; metadata?: Metadata },
): void {
  stream.respond(
    { ...OK, ...metadata?.toHttp2Headers(), "grpc-status": code, "grpc-message": encodeURI(details) },
    { endStream: true },
  );
  // nothing waits for the rest of the request. The stream is closed only in the next turn, since Node 22 drops the
  // response of a stream that is closed in the same turn
  stream.resume();
  setImmediate(() => {
    if (!stream.destroyed && !stream.readableEnded) stream.close();
  });
}

async function tellHealth(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, healthOf: Health): Promise<void> {
  const { Check } = health;
  const request = await messageOf(stream).catch(() => undefined);
  if (stream.destroyed || stream.closed || Check === undefined) return;
  const service = request === undefined ? undefined : serviceIn(Check.requestDeserialize, request);
  if (service === undefined || headers["grpc-encoding"] === "gzip")
    return refuse(stream, { code: status.INVALID_ARGUMENT, details: "The request is not one of Health/Check" });
  const found = healthOf(service);
  if (found === undefined)
    return refuse(stream, { code: status.NOT_FOUND, details: "The health of that service is not known" });
  const message = Check.responseSerialize({ status: found });
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  stream.respond(OK, { waitForTrailers: true });
  stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": status.OK }));
  stream.end(Buffer.concat([head, message]));
}

function serviceIn(deserialize: (bytes: Buffer) => object, message: Buffer): string | undefined {
  try {
    const read: { service?: unknown } = deserialize(message);
    return typeof read.service === "string" ? read.service : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Reads the message of a request.
 * @returns undefined unless there is exactly one message, which is not compressed and not too long
 */
async function messageOf(stream: ServerHttp2Stream): Promise<Buffer | undefined> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of stream.iterator({ destroyOnReturn: false })) {
    bytes += part.length;
    if (bytes > REQUEST_BYTES_MAX) return undefined;
    parts.push(part);
  }
  const all = Buffer.concat(parts);
  return all.length >= 5 && all[0] === 0 && all.readUInt32BE(1) === all.length - 5 ? all.subarray(5) : undefined;
}
