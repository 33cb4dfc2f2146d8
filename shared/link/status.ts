/** Faults as gRPC statuses and back: the code for whoever knows only gRPC, the rest in trailers. */
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { type FaultCode, type FaultDetails, MigrationFault, type Refusal } from "../fault.ts";

const CODE = "ferry-code";
const ADVICE = "ferry-advice-bin";
const GUEST_NOW = "ferry-guest-now-bin";
const REFUSALS = "ferry-refusals-bin";

export function statusOf(code: FaultCode): status {
  switch (code) {
    case "invalid-argument":
      return status.INVALID_ARGUMENT;
    case "guest-unknown":
    case "migration-unknown":
      return status.NOT_FOUND;
    case "guest-not-running":
    case "guest-busy":
    case "not-in-doubt":
    case "refused":
    case "verify-mismatch":
      return status.FAILED_PRECONDITION;
    case "not-supported":
    case "stream-unsupported":
      return status.UNIMPLEMENTED;
    case "qmp-unreachable":
    case "qmp-disconnected":
    case "peer-unreachable":
    case "peer-lost":
    case "stopping":
      return status.UNAVAILABLE;
    case "qmp-timeout":
    case "deadline":
    case "timeout":
      return status.DEADLINE_EXCEEDED;
    case "cancelled":
      return status.CANCELLED;
    case "checksum-mismatch":
    case "stream-invalid":
      return status.DATA_LOSS;
    case "qmp-command":
    case "qmp-protocol":
    case "qemu-start":
    case "qemu-failed":
    case "peer-invalid":
    case "peer-failed":
    case "in-doubt":
    case "state-directory":
    case "configuration":
    case "internal":
      return status.INTERNAL;
  }
}

/** What grpc-js takes for an error of a call. */
export function toStatus(thrown: unknown): { code: status; details: string; metadata: Metadata } {
  const fault = MigrationFault.from(thrown);
  const metadata = new Metadata();
  metadata.set(CODE, fault.code);
  // binary trailers take any text; plain ones only ASCII
  if (fault.advice !== undefined) metadata.set(ADVICE, Buffer.from(fault.advice));
  if (fault.guestNow !== undefined) metadata.set(GUEST_NOW, Buffer.from(fault.guestNow));
  if (fault.refusals.length > 0) metadata.set(REFUSALS, Buffer.from(JSON.stringify(fault.refusals)));
  return { code: statusOf(fault.code), details: fault.message, metadata };
}

/** The fault that the peer named; without one, what its status means: `lost` when there is no peer. */
export function fromStatus(error: ServiceError, lost: FaultCode): MigrationFault {
  const named = CODES.find((code) => code === error.metadata.get(CODE)[0]);
  const code = named ?? (error.code === status.INVALID_ARGUMENT ? "invalid-argument" : lost);
  const details: FaultDetails = { cause: error, refusals: readRefusals(error.metadata) };
  const advice = error.metadata.get(ADVICE)[0]?.toString();
  const guestNow = error.metadata.get(GUEST_NOW)[0]?.toString();
  if (advice !== undefined) details.advice = advice;
  if (guestNow !== undefined) details.guestNow = guestNow;
  return new MigrationFault(code, error.details || error.message, details);
}

function readRefusals(metadata: Metadata): readonly Refusal[] {
  const text = metadata.get(REFUSALS)[0]?.toString();
  if (text === undefined) return [];
  try {
    const value: unknown = JSON.parse(text);
    if (!Array.isArray(value)) return [];
    return value.map((one) => ({ code: String(one?.code), message: String(one?.message) }));
  } catch {
    return []; // a peer's trailer that is no JSON tells nothing
  }
}

const CODES: readonly FaultCode[] = [
  "invalid-argument",
  "guest-unknown",
  "guest-not-running",
  "guest-busy",
  "migration-unknown",
  "not-in-doubt",
  "not-supported",
  "refused",
  "qmp-unreachable",
  "qmp-timeout",
  "qmp-disconnected",
  "qmp-command",
  "qmp-protocol",
  "qemu-start",
  "qemu-failed",
  "stream-invalid",
  "stream-unsupported",
  "peer-unreachable",
  "peer-lost",
  "peer-invalid",
  "peer-failed",
  "checksum-mismatch",
  "cancelled",
  "deadline",
  "verify-mismatch",
  "in-doubt",
  "stopping",
  "timeout",
  "state-directory",
  "configuration",
  "internal",
];
