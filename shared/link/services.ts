/** The methods of the three services with domain messages: what the servers implement and the clients call. */
import type { SourceMessage } from "../protocol/messages.ts";
import { decodeFrame, encodeFrame, isFrame } from "./frame-wire.ts";
import { domainMethod } from "./proto-files.ts";
import * as operator from "./wire-operator.ts";
import * as peer from "./wire-peer.ts";

const SERVICE = "MigrationService";

export const migrationService = {
  ListGuests: domainMethod(SERVICE, "ListGuests", operator.nothingWire, operator.guestsWire),
  Plan: domainMethod(SERVICE, "Plan", operator.planCallWire, operator.planWire),
  Migrate: domainMethod(SERVICE, "Migrate", operator.migrateCallWire, operator.migrationWire),
  GetMigration: domainMethod(SERVICE, "GetMigration", operator.textWire("id"), operator.migrationWire),
  ListMigrations: domainMethod(SERVICE, "ListMigrations", operator.nothingWire, operator.migrationsWire),
  WatchMigration: domainMethod(SERVICE, "WatchMigration", operator.textWire("id"), operator.migrationWire),
  CancelMigration: domainMethod(SERVICE, "CancelMigration", operator.textWire("id"), operator.migrationWire),
  GetHeatMap: domainMethod(SERVICE, "GetHeatMap", operator.heatCallWire, operator.heatMapWire),
  ResolveMigration: domainMethod(SERVICE, "ResolveMigration", operator.resolveCallWire, operator.migrationWire),
} as const;

export const destinationService = {
  Handshake: domainMethod("DestinationService", "Handshake", peer.offerWire, peer.answerWire),
} as const;

const transfer = domainMethod("TransferService", "Transfer", peer.destinationMessageWire, peer.sourceMessageWire);

/** Frames go past the generated form (frame-wire.ts). */
export const transferService = {
  Transfer: {
    ...transfer,
    responseSerialize: (message: SourceMessage): Buffer =>
      message.kind === "frame" ? encodeFrame(message) : transfer.responseSerialize(message),
    responseDeserialize: (bytes: Buffer): SourceMessage =>
      isFrame(bytes) ? decodeFrame(bytes) : transfer.responseDeserialize(bytes),
  },
} as const;
