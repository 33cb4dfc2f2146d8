/**
 * The gRPC status with which a call over Ferry's own HTTP/2 client ends, in the form in which grpc-js gives the status
 * of a call. So wire/status.ts reads the statuses of both clients alike, and decides what they mean for a migration.
 */
import type { IncomingHttpHeaders } from "node:http2";
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import type { HeaderField } from "./hpack.ts";
import { ERROR } from "./not-understood.ts";

export class StreamStatus extends Error implements ServiceError {
  readonly code: status;
  readonly details: string;
  readonly metadata: Metadata;

  constructor(code: status, details: string, metadata = new Metadata()) {
    super(`${code} ${status[code] ?? "UNKNOWN"}: ${details}`);
    this.name = "StreamStatus";
    this.code = code;
    this.details = details;
    this.metadata = metadata;
  }

  get isOk(): boolean {
    return this.code === status.OK;
  }
}

/** The status of a call whose connection ended, or was never made. */
export const unavailable = (details: string): StreamStatus => new StreamStatus(status.UNAVAILABLE, details);

/** The status of a stream that the peer has reset, in the words of grpc-js. */
export const statusOfReset = (errorCode: number): StreamStatus =>
  errorCode === ERROR.refusedStream
    ? unavailable("Stream refused by server")
    : new StreamStatus(status.INTERNAL, `Received RST_STREAM with code ${errorCode}`);

/**
 * Makes the status of a stream that has ended with these trailers.
 * @param httpStatus the status of the response; undefined where there was none
 */
export function statusOf(trailers: readonly HeaderField[], httpStatus: string | undefined): StreamStatus {
  const metadata = metadataOf(trailers);
  const [code] = metadata.get("grpc-status");
  const [message] = metadata.get("grpc-message");
  metadata.remove("grpc-status");
  metadata.remove("grpc-message");
  if (code === undefined) return new StreamStatus(status.UNKNOWN, withoutStatus(httpStatus), metadata);
  const known = Object.values(status).find((one) => String(one) === String(code) && typeof one === "number");
  return new StreamStatus(typeof known === "number" ? known : status.UNKNOWN, decoded(String(message ?? "")), metadata);
}

const withoutStatus = (httpStatus: string | undefined): string =>
  httpStatus === undefined || httpStatus === "200"
    ? "The stream ended without a status of gRPC"
    : `Received HTTP status code ${httpStatus}`;

function metadataOf(fields: readonly HeaderField[]): Metadata {
  const values = new Map<string, string>();
  for (const [name, value] of fields) {
    const before = values.get(name);
    values.set(name, before === undefined ? value : `${before}, ${value}`);
  }
  const headers: IncomingHttpHeaders = Object.fromEntries(values);
  try {
    return Metadata.fromHttp2Headers(headers);
  } catch {
    return new Metadata(); // as in grpc-js, one field that is not allowed makes all fields count as absent
  }
}

/** Decodes the text of a status, in which everything but ASCII stands as %XX. */
function decoded(text: string): string {
  try {
    return decodeURI(text);
  } catch {
    return text;
  }
}
