/**
 * The faults of a connection whose bytes this client does not take. No agent has said anything by them, so they count
 * as a cut of the link, and the next connection of the same migration is made by grpc-js
 * (docs/design/wire.md#the-client-by-hand).
 */
import { MigrationFault } from "../../fault.ts";

/** HTTP/2's error codes that this client says (RFC 9113, section 7). */
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

/** A connection that does not keep to the rules, or asks for what this client does not do. */
export class NotUnderstood extends MigrationFault {
  /** What GOAWAY tells the peer. */
  readonly errorCode: ErrorCode;

  /** @param what completes the sentence "The source's HTTP/2 is not understood: it sent …" */
  constructor(what: string, errorCode: ErrorCode = ERROR.protocol) {
    super("peer-lost", `The source's HTTP/2 is not understood: it sent ${what}`);
    this.errorCode = errorCode;
  }
}
