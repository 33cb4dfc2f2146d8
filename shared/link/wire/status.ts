/**
 * Turns faults into gRPC statuses and back. The code and the text of the status are for clients that know only gRPC.
 * The rest of a fault is in the trailers.
 */

import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { defined } from "../../defined.ts";
import { type FaultCode, type FaultDetails, MigrationFault, type Refusal } from "../../fault.ts";
import { connectionFault, type Dialled } from "../tls/connection-fault.ts";
import { codeText } from "./wire-read.ts";

const CODE = "ferry-code";
const ADVICE = "ferry-advice-bin";
const GUEST_NOW = "ferry-guest-now-bin";
const REFUSALS = "ferry-refusals-bin";
/**
 * The most characters of a text, and of all refusals together. The trailers have to fit into a header list of 64 KiB,
 * in base64, or with %XX for what is not ASCII.
 */
const TEXT_CHARACTERS_MAX = 2048;
const REFUSALS_CHARACTERS_MAX = 6144;

/** The status of each code. A new code that is forgotten here does not compile. */
const STATUSES: Readonly<Record<FaultCode, status>> = {
  "invalid-argument": status.INVALID_ARGUMENT,
  "guest-unknown": status.NOT_FOUND,
  "migration-unknown": status.NOT_FOUND,
  "guest-not-running": status.FAILED_PRECONDITION,
  "guest-busy": status.FAILED_PRECONDITION,
  busy: status.RESOURCE_EXHAUSTED,
  "not-in-doubt": status.FAILED_PRECONDITION,
  "not-resolvable": status.FAILED_PRECONDITION,
  "needs-confirmation": status.FAILED_PRECONDITION,
  "too-late": status.FAILED_PRECONDITION,
  refused: status.FAILED_PRECONDITION,
  "verify-mismatch": status.FAILED_PRECONDITION,
  "disks-changed": status.FAILED_PRECONDITION,
  "devices-changed": status.FAILED_PRECONDITION,
  "not-supported": status.UNIMPLEMENTED,
  "stream-unsupported": status.UNIMPLEMENTED,
  "qmp-unreachable": status.UNAVAILABLE,
  "qmp-forbidden": status.FAILED_PRECONDITION,
  "qmp-disconnected": status.UNAVAILABLE,
  "peer-unreachable": status.UNAVAILABLE,
  "peer-lost": status.UNAVAILABLE,
  stopping: status.UNAVAILABLE,
  interrupted: status.UNAVAILABLE,
  "qmp-timeout": status.DEADLINE_EXCEEDED,
  deadline: status.DEADLINE_EXCEEDED,
  timeout: status.DEADLINE_EXCEEDED,
  cancelled: status.CANCELLED,
  "checksum-mismatch": status.DATA_LOSS,
  "stream-invalid": status.DATA_LOSS,
  "qmp-command": status.INTERNAL,
  "qmp-protocol": status.INTERNAL,
  "qemu-start": status.INTERNAL,
  "qemu-failed": status.INTERNAL,
  "peer-invalid": status.INVALID_ARGUMENT,
  "pages-lost": status.DATA_LOSS,
  "peer-failed": status.INTERNAL,
  "peer-untrusted": status.UNAUTHENTICATED,
  "not-authorised": status.PERMISSION_DENIED,
  "in-doubt": status.INTERNAL,
  "two-copies": status.FAILED_PRECONDITION,
  "state-directory": status.INTERNAL,
  "agent-running": status.INTERNAL,
  configuration: status.INTERNAL,
  internal: status.INTERNAL,
};

const statusOf = (code: FaultCode): status => STATUSES[code];

const isFaultCode = (text: unknown): text is FaultCode => typeof text === "string" && Object.hasOwn(STATUSES, text);

/** Makes the status of a call from what was thrown, in the form of an error that grpc-js accepts. */
export function toStatus(thrown: unknown): { code: status; details: string; metadata: Metadata } {
  const fault = MigrationFault.from(thrown);
  const metadata = new Metadata();
  metadata.set(CODE, fault.code);
  // binary trailers take any text, plain ones only ASCII
  if (fault.advice !== undefined) metadata.set(ADVICE, Buffer.from(cut(fault.advice)));
  if (fault.guestNow !== undefined) metadata.set(GUEST_NOW, Buffer.from(cut(fault.guestNow)));
  const refusals = fitting(fault.refusals);
  if (refusals.length > 0) metadata.set(REFUSALS, Buffer.from(JSON.stringify(refusals)));
  return { code: statusOf(fault.code), details: withAdvice(cut(fault.message), fault.advice), metadata };
}

/**
 * Returns the fault that the peer has named. Without such a name, the fault is what the status means.
 * @param lost the code of the fault where no peer has answered
 * @param dialled tells why a connection was never made
 */
export function fromStatus(error: ServiceError, lost: FaultCode, dialled?: Dialled): MigrationFault {
  const named = error.metadata.get(CODE)[0];
  const unconnected = named === undefined && error.code === status.UNAVAILABLE && dialled !== undefined;
  const failed = unconnected ? connectionFault(error, lost, dialled) : undefined;
  if (failed !== undefined) return failed;
  const code = isFaultCode(named) ? named : meaningOf(error.code, lost);
  const details: FaultDetails = { cause: error, refusals: readRefusals(error.metadata) };
  const advice = error.metadata.get(ADVICE)[0]?.toString();
  const guestNow = error.metadata.get(GUEST_NOW)[0]?.toString();
  if (advice !== undefined) details.advice = advice;
  if (guestNow !== undefined) details.guestNow = guestNow;
  return new MigrationFault(code, withoutAdvice(error.details || error.message, advice), details);
}

/** Codes that say where a guest is, or what its operator wants. No peer knows that about a guest of this host. */
const OF_THE_OWN_HOST: readonly FaultCode[] = ["cancelled", "in-doubt", "two-copies"];

/**
 * Makes the fault of a call to another agent from what that agent has said. Its text and advice are shown as the
 * peer's. Only this agent says where the guest is, and only this agent's codes decide the exit code of an operator's
 * command.
 */
export function peersFault(fault: MigrationFault): MigrationFault {
  const { advice, role, refusals, cause, message } = fault;
  const code = OF_THE_OWN_HOST.includes(fault.code) ? "peer-failed" : fault.code;
  return new MigrationFault(code, message, {
    ...{ refusals, cause },
    ...defined({ advice, role }),
  });
}

/**
 * Matches the words with which gRPC's library, here or at the peer, rejects a message that is too large. It would
 * reject the next message of that length too, so such an end is no cut.
 */
const TOO_LARGE = /message larger than max|message that decompresses to a size larger than/i;

/**
 * Tells what the end of a stream means. Only an agent can end a stream, by naming its fault. Everything that HTTP/2, a
 * proxy or gRPC's library makes of the end of a connection (a reset, a GOAWAY, a time-out, a status of any kind) is a
 * cut (docs/design/link-and-resume.md#what-ends-a-stream).
 * @param dialled tells why a connection was never made
 */
export function streamFault(error: ServiceError, dialled?: Dialled): MigrationFault {
  const fault = fromStatus(error, "peer-lost", dialled);
  const named = error.metadata.get(CODE)[0];
  if (isFaultCode(named)) return fault;
  // an agent of a later version has named a reason for which this version has no word
  if (named !== undefined) return new MigrationFault("peer-failed", fault.message, { cause: error });
  // where there was no connection, the fault says what this agent has found out about the server that it dialled
  if (error.code === status.UNAVAILABLE) return fault;
  const code = TOO_LARGE.test(error.details) ? "peer-invalid" : "peer-lost";
  return new MigrationFault(code, fault.message, { cause: error });
}

/**
 * The trailer of an orderly end that answers an end which the peer had not announced
 * (docs/design/link-and-resume.md#what-ends-a-stream).
 */
const UNEXPECTED_END = "ferry-unexpected-end";

/**
 * Makes the trailers of an orderly end that answers an end which the peer had not announced. For gRPC, and for an agent
 * that does not know the trailer, the stream has ended well.
 */
export function unexpectedEnd(): Metadata {
  const trailers = new Metadata();
  trailers.set(UNEXPECTED_END, "1");
  return trailers;
}

export const wasUnexpected = (trailers: Metadata): boolean => trailers.get(UNEXPECTED_END).length > 0;

/**
 * The longest advice that the text of a status repeats, characters: a sentence. Longer advice is only in its trailer,
 * for which TEXT_CHARACTERS_MAX leaves room.
 */
const ADVICE_IN_TEXT_MAX = 500;

/** Adds the advice to the text of a status, since a client that knows only gRPC shows nothing but the text. */
const withAdvice = (message: string, advice: string | undefined): string =>
  advice === undefined || advice.length > ADVICE_IN_TEXT_MAX ? message : `${message}. ${cut(advice)}`;

function withoutAdvice(text: string, advice: string | undefined): string {
  const tail = `. ${advice ?? ""}`;
  return advice !== undefined && text.endsWith(tail) ? text.slice(0, -tail.length) : text;
}

/** Returns the meaning of a status that was made by gRPC, or by a program that is no agent. */
function meaningOf(code: status, lost: FaultCode): FaultCode {
  switch (code) {
    case status.INVALID_ARGUMENT:
      return "invalid-argument";
    case status.DEADLINE_EXCEEDED:
      return "timeout";
    case status.UNAUTHENTICATED:
      return "peer-untrusted";
    case status.PERMISSION_DENIED:
      return "not-authorised";
    case status.UNIMPLEMENTED:
    case status.RESOURCE_EXHAUSTED:
      return "peer-invalid";
    default:
      return lost;
  }
}

// gRPC passes the text to encodeURI, which throws at half a pair of surrogates
const cut = (text: string): string =>
  text
    .slice(0, TEXT_CHARACTERS_MAX)
    .replace(/[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g, "\uFFFD");

function fitting(refusals: readonly Refusal[]): readonly Refusal[] {
  let left = REFUSALS_CHARACTERS_MAX;
  return refusals
    .map(({ code, message }) => ({ code, message: cut(message) }))
    .filter((one) => {
      left -= JSON.stringify(one).length + 1;
      return left > 0;
    });
}

function readRefusals(metadata: Metadata): readonly Refusal[] {
  const text = metadata.get(REFUSALS)[0]?.toString();
  if (text === undefined) return [];
  try {
    const value: unknown = JSON.parse(text);
    if (!Array.isArray(value)) return [];
    return value.map((one) => ({ code: codeText(String(one?.code)), message: String(one?.message) }));
  } catch {
    return []; // a trailer that is no JSON names no refusals
  }
}
