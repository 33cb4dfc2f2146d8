/** All the ways in which an HTTP/2 connection may end, by either end or by something between the two ends. */
import { type End, field, type RelayedConnection, type Way } from "./breaking-relay.ts";

const way = (name: string, end: (connection: RelayedConnection) => void): Way => ({ name, end });
const both: readonly End[] = ["source", "destination"];
/** HTTP/2's error codes (RFC 9113, section 7). */
const RESETS = { NO_ERROR: 0, INTERNAL_ERROR: 2, REFUSED_STREAM: 7, CANCEL: 8, ENHANCE_YOUR_CALM: 11, HTTP_1_1: 13 };
/** The gRPC statuses that something else than an agent may send. */
const STATUSES = {
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  UNAUTHENTICATED: 16,
};

/** All ways that end a connection at once. Ends that only a keep-alive finds are not among them. */
export const WAYS: readonly Way[] = [
  way("both connections end", (one) => one.fin(...both)),
  way("both connections are reset", (one) => one.rst(...both)),
  way("the connection to the source ends", (one) => one.fin("source")),
  way("the connection to the destination ends", (one) => one.fin("destination")),
  way("the connection to the source ends, the other is reset", (one) => {
    one.fin("source");
    one.rst("destination");
  }),
  ...Object.entries(RESETS).flatMap(([name, code]) => [
    way(`RST_STREAM ${name} to both`, (one) => {
      for (const end of both) one.resetStream(end, code);
    }),
    way(`RST_STREAM ${name} to the destination`, (one) => one.resetStream("destination", code)),
    way(`RST_STREAM ${name} to the source, the other connection ends`, (one) => {
      one.resetStream("source", code);
      one.fin("destination");
    }),
  ]),
  ...[0, 2, 11].flatMap((code) =>
    [0, 1].map((lastStream) =>
      way(`GOAWAY ${code} of stream ${lastStream} to both, then their end`, (one) => {
        for (const end of both) one.goAway(end, code, lastStream);
        one.fin(...both);
      }),
    ),
  ),
  way("END_STREAM to the source, which may still answer", (one) => one.endStream("source")),
  way("END_STREAM to the destination, without a status", (one) => one.endStream("destination")),
  way("END_STREAM to both", (one) => {
    for (const end of both) one.endStream(end);
  }),
  way("END_STREAM to the source, the other connection is reset", (one) => {
    one.endStream("source");
    one.rst("destination");
  }),
  ...Object.entries(STATUSES).map(([name, code]) =>
    way(`the status ${name} to the destination`, (one) => {
      one.answer(field("grpc-status", String(code)), field("grpc-message", "upstream connect error"));
      one.fin("source");
    }),
  ),
  ...[400, 401, 403, 404, 429, 502, 504].map((code) =>
    way(`HTTP ${code} to the destination`, (one) => {
      one.answerHttp(code);
      one.fin("source");
    }),
  ),
];
