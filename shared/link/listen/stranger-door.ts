/**
 * What callers meet over TLS who have no good certificate, or one that is on no list: a server of HTTP/2 that can only
 * refuse a call, with the reason (decision 0020), and tell the health. A refusal ends the connection. Nothing of such a
 * caller reaches gRPC's library, which parses whatever it gets and bounds little of it.
 */
import { createServer, type Http2Session, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import type { Duplex } from "node:stream";
import { type Metadata, status } from "@grpc/grpc-js";
import { service as health } from "grpc-health-check";
import { MigrationFault } from "../../fault.ts";
import { toStatus } from "../wire/status.ts";

export interface StrangerDoor {
  receive(connection: Duplex): void;
  /** Cuts what is still open. */
  cut(): void;
}

/** Tells why the stranger behind `session` may not call `path`; undefined where it may. */
export type Judge = (session: Http2Session, path: string) => MigrationFault | undefined;

/** @returns undefined for a service that there is not */
export type Health = (service: string) => "SERVING" | "NOT_SERVING" | undefined;

/** Looks at the health over one connection; more are of no use within the life of a stranger's connection. */
const LOOKS_MAX = 4;
/** How long the last answer may take to reach its caller, milliseconds. */
const LINGER_MS = 2000;
/** Of a request: five bytes before the message, and the name of a service. */
const REQUEST_BYTES_MAX = 256;
const CHECK = "/grpc.health.v1.Health/Check";
const OK = { ":status": 200, "content-type": "application/grpc+proto" };

export function openStrangerDoor(judge: Judge, healthOf: Health): StrangerDoor {
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
  // of a caller that does not speak HTTP/2
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
    if (fault !== undefined || looks >= LOOKS_MAX) finish(session);
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

/** Takes no call any more, and ends when the last answer was taken, or should have been. */
function finish(session: Http2Session): void {
  if (session.closed) return;
  session.close();
  setTimeout(() => session.destroy(), LINGER_MS).unref();
}

function refuse(
  stream: ServerHttp2Stream,
  { code, details, metadata }: { code: status; details: string; metadata?: Metadata },
): void {
  stream.respond(
    { ...OK, ...metadata?.toHttp2Headers(), "grpc-status": code, "grpc-message": encodeURI(details) },
    { endStream: true },
  );
  // the rest of the request is not waited for; Node 22 drops the response of a stream that is closed in the same turn
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

/** The one message of a request. @returns undefined for another number, a compressed one, or one that is too long */
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
