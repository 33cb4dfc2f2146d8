/**
 * The fault of a connection over which bytes came that the client by hand, Ferry's own HTTP/2 client, does not
 * understand. Only an agent ends a transfer stream, by what it says, so the fault counts as a cut of the link. grpc-js
 * makes the next connection of the same migration (docs/design/wire.md#the-client-by-hand).
 */
import { MigrationFault } from "../../fault.ts";

/** The error codes of HTTP/2 that this client sends or looks for (RFC 9113, section 7). */
export const ERROR = {
  none: 0,
  protocol: 1,
  flowControl: 3,
  frameSize: 6,
  refusedStream: 7,
  cancel: 8,
  compression: 9,
} as const;
export type ErrorCode = (typeof ERROR)[keyof typeof ERROR];

/** The fault of a peer that does not keep to the rules of HTTP/2, or asks for what this client does not do. */
export class NotUnderstood extends MigrationFault {
  /** What GOAWAY tells the peer. */
  readonly errorCode: ErrorCode;

  /** @param what completes the sentence "The source's HTTP/2 is not understood: it sent …" */
  constructor(what: string, errorCode: ErrorCode = ERROR.protocol) {
    super("peer-lost", `The source's HTTP/2 is not understood: it sent ${what}`);
    this.errorCode = errorCode;
  }
}
