/**
 * The methods of the three services of proto/ferry/v1, whose messages are domain objects here. The servers implement
 * these methods, and the clients call them.
 */
import { MigrationFault } from "../../fault.ts";
import type { SourceMessage } from "../../protocol/stream-messages.ts";
import { decodeFrame, encodeFrame, isFrame } from "../wire/frame-wire.ts";
import { type DomainMethod, domainMethod, type Received, receive, type Translation } from "../wire/proto-files.ts";
import * as handshake from "../wire/wire-handshake.ts";
import * as operator from "../wire/wire-operator.ts";
import * as peer from "../wire/wire-peer.ts";
import { planCallWire, planWire } from "../wire/wire-plan.ts";

/**
 * Makes a method for operators. A request that is not valid is a wrong argument of the operator, so its fault is
 * `invalid-argument` and not `peer-invalid`.
 */
function operatorMethod<Request, Response>(
  name: string,
  request: Translation<Request>,
  response: Translation<Response>,
): DomainMethod<Request, Response> {
  const method = domainMethod("MigrationService", name, request, response);
  const requestDeserialize = (bytes: Buffer): Received<Request> => {
    const received = method.requestDeserialize(bytes);
    if (!(received instanceof MigrationFault) || received.code !== "peer-invalid") return received;
    return new MigrationFault("invalid-argument", received.message, { cause: received });
  };
  return { ...method, requestDeserialize };
}

export const migrationService = {
  ListGuests: operatorMethod("ListGuests", operator.nothingWire, operator.guestsWire),
  Plan: operatorMethod("Plan", planCallWire, planWire),
  Migrate: operatorMethod("Migrate", operator.migrateCallWire, operator.migrationWire),
  GetMigration: operatorMethod("GetMigration", operator.textWire("id"), operator.migrationWire),
  ListMigrations: operatorMethod("ListMigrations", operator.nothingWire, operator.migrationsWire),
  WatchMigration: operatorMethod("WatchMigration", operator.textWire("id"), operator.migrationWire),
  CancelMigration: operatorMethod("CancelMigration", operator.textWire("id"), operator.migrationWire),
  GetHeatMap: operatorMethod("GetHeatMap", operator.heatCallWire, operator.heatMapWire),
  ResolveMigration: operatorMethod("ResolveMigration", operator.resolveCallWire, operator.migrationWire),
} as const;

export const destinationService = {
  Handshake: domainMethod("DestinationService", "Handshake", handshake.offerWire, handshake.answerWire),
  Settle: domainMethod("DestinationService", "Settle", peer.settleCallWire, peer.settleAnswerWire),
} as const;

const transfer = domainMethod("TransferService", "Transfer", peer.destinationMessageWire, peer.sourceMessageWire);

/**
 * The largest request, the largest answer of a destination, and the largest message of a source that is not a frame,
 * bytes. The largest that agents send are the offer of a guest with many devices, a layout, the digests of a stretch of
 * memory and a probe, of 64 KiB each. proto-loader's deserialiser would make some millions of objects from a message of
 * 8 MiB.
 */
export const CONTROL_BYTES_MAX = 256 << 10;

const tooLong = (bytes: Buffer): MigrationFault =>
  new MigrationFault("peer-invalid", `The peer sent a message of ${bytes.length} bytes that is no frame`);

/** Frames do not go through proto-loader's serialisers, but through wire/frame-wire.ts. */
export const transferService = {
  Transfer: {
    ...transfer,
    responseSerialize: (message: SourceMessage): Buffer =>
      message.kind === "frame" ? encodeFrame(message) : transfer.responseSerialize(message),
    responseDeserialize: (bytes: Buffer): Received<SourceMessage> => {
      if (isFrame(bytes)) return receive(() => decodeFrame(bytes));
      return bytes.length > CONTROL_BYTES_MAX ? tooLong(bytes) : transfer.responseDeserialize(bytes);
    },
  },
} as const;

/**
 * Reads a message of a source from memory that is used again as soon as the caller has handled the message. A frame is
 * *lent* (`isLent`): its body and its checksum are views of that memory. Every other message is read from a copy, and
 * keeps nothing of that memory.
 */
export function readInPlace(bytes: Buffer): Received<SourceMessage> {
  const { responseDeserialize } = transferService.Transfer;
  if (isFrame(bytes)) return receive(() => ({ ...decodeFrame(bytes), isLent: true }));
  // a message that is too long is refused without being read, so it is not copied either
  return responseDeserialize(bytes.length > CONTROL_BYTES_MAX ? bytes : Buffer.from(bytes));
}
