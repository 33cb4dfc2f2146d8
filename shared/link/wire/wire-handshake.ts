/**
 * Translates the handshake between its domain types and the messages of proto/ferry/v1/peer.proto. Agents of protocol 1
 * leave fields out.
 */
import type { Refusal } from "../../fault.ts";
import {
  type Codec,
  type Contract,
  DEADLINE_ACTIONS,
  type DeadlineAction,
  type HandshakeAnswer,
  type Offer,
  type QemuVersion,
  type RamBlock,
  STRATEGIES,
  type Strategy,
  type TransferOffer,
} from "../../protocol/messages.ts";
import { RAM_BLOCKS_MAX } from "../../units.ts";
import type { Translation } from "./proto-files.ts";
import { foundGuest } from "./wire-guest.ts";
import {
  bytes,
  codeText,
  flag,
  knownWords,
  list,
  malformed,
  numbers,
  object,
  shortText,
  strings,
  text,
  type WireObject,
  whole,
  word,
} from "./wire-read.ts";

const version = (wire: unknown): QemuVersion => {
  const given = object(wire, "QEMU version");
  return { major: whole(given.major, "major"), minor: whole(given.minor, "minor"), micro: whole(given.micro, "micro") };
};

/** The bounds of lists in an offer, which is logged and may come from any peer. Both are above what any agent says. */
const VERSIONS_MAX = 64;
const FEATURES_MAX = 4096;
/** The most characters of an agent's address. The name of a host has 253 at most, and a port or `unix:` is added. */
export const ADDRESS_CHARACTERS_MAX = 300;

export const blocks = (wire: unknown): readonly RamBlock[] =>
  list(wire, "RAM blocks", RAM_BLOCKS_MAX).map((block) => ({
    name: shortText(block.name, "block name"),
    byteLength: whole(block.byteLength, "block length"),
    pageSize: whole(block.pageSize, "block page size"),
  }));

/** Reads the id of a migration. Files of the destination are named by it, so it must have the form of an id. */
export const migrationId = (wire: unknown): string => {
  const id = text(wire, "migration id");
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(id)) throw malformed("migration id", `is ${JSON.stringify(id.slice(0, 80))}`);
  return id;
};

/**
 * Reads a token. It must not be empty, since an empty token would equal the `refusedToken` of every failure that
 * refuses nothing.
 */
export const token = (wire: unknown): Uint8Array => {
  const given = bytes(wire, "token");
  if (given.length === 0 || given.length > 64) throw malformed("token", `has ${given.length} bytes`);
  return given;
};

/** Reads each codec once, in the peer's order. Codecs that this build does not know are left out of the contract. */
const codecs = (wire: unknown): readonly Codec[] => [
  ...new Set(strings(wire, "codecs").filter((one): one is Codec => one === "xbzrle" || one === "zstd")),
];

/**
 * The most characters that are kept of a peer's text, and the most that are kept of its reasons or warnings. They go
 * into logs and to operators, so a few sentences are enough.
 */
const SAID_CHARACTERS_MAX = 2000;
const REASONS_MAX = 64;

/** Reads a text that a peer says, and cuts it to a few sentences. */
export const said = (wire: unknown, field: string): string => text(wire, field).slice(0, SAID_CHARACTERS_MAX);

const refusals = (wire: unknown): readonly Refusal[] => {
  const given = Array.isArray(wire) ? wire.slice(0, REASONS_MAX) : wire;
  return list(given, "reasons").map((one) => ({ code: codeText(one.code), message: said(one.message, "message") }));
};

/** The strategies that a peer of protocol 1 can use. It does not say them. */
const OF_PROTOCOL_1: readonly Strategy[] = ["stop-and-copy", "precopy"];

/** Fills in `otherwise` where a peer of protocol 1 has said nothing. */
const orIfEmpty = (value: unknown, otherwise: string): unknown => (value === "" ? otherwise : value);

/**
 * Returns the value of `on_deadline` for a destination of protocol 1. Such a destination knows only `cancel` and
 * `force`, and rejects an offer with another value without saying why.
 */
const olderDeadline = (action: DeadlineAction): string => (action === "postcopy" ? "cancel" : action);

function transferOffer(given: WireObject): TransferOffer {
  const strategies = knownWords(given.strategies, STRATEGIES, "strategies");
  const older = text(given.onDeadline, "on_deadline");
  return {
    codecs: codecs(given.codecs),
    downtimeTargetMs: whole(given.downtimeTargetMs, "downtime target"),
    deadlineMs: whole(given.deadlineMs, "deadline"),
    onDeadline: word(orIfEmpty(given.deadlineAction, older), DEADLINE_ACTIONS, "on_deadline"),
    frameBytes: whole(given.frameBytes, "frame size"),
    creditWindowBytes: whole(given.creditWindowBytes, "credit window"),
    verify: flag(given.verify),
    strategies: strategies.length === 0 ? OF_PROTOCOL_1 : strategies,
    strategy: word(orIfEmpty(given.strategy, "auto"), ["auto", ...STRATEGIES] as const, "strategy"),
    postcopyMayFollow: flag(given.postcopyMayFollow),
  };
}

export const offerWire: Translation<Offer> = {
  toWire: (offer) => ({
    ...offer,
    guest: { ...offer.guest },
    transfer: {
      ...offer.transfer,
      onDeadline: olderDeadline(offer.transfer.onDeadline),
      deadlineAction: offer.transfer.onDeadline,
    },
  }),
  fromWire: (wire) => {
    const given = object(wire, "handshake");
    const guest = object(given.guest, "guest");
    const features = Object.entries(object(guest.cpuFeatures ?? {}, "cpu_features"));
    if (features.length > FEATURES_MAX)
      throw malformed("cpu_features", `are ${features.length}; at most ${FEATURES_MAX} are allowed`);
    return {
      protocolVersions: numbers(given.protocolVersions, "protocol versions", VERSIONS_MAX),
      migrationId: migrationId(given.migrationId),
      token: token(given.token),
      sourceAddress: shortText(given.sourceAddress, "source address", ADDRESS_CHARACTERS_MAX),
      dryRun: flag(given.dryRun),
      measureLink: flag(given.measureLink),
      saysKept: flag(given.saysKept),
      guest: {
        name: shortText(guest.name, "guest name"),
        definitionDigest: shortText(guest.definitionDigest, "definition digest"),
        machineType: shortText(guest.machineType, "machine type"),
        qemuVersion: version(guest.qemuVersion),
        cpuModel: shortText(guest.cpuModel, "CPU model"),
        cpuFeatures: Object.fromEntries(
          features.map(([key, word]) => [shortText(key, "cpu_features"), whole(word, "cpu_features")]),
        ),
        ramBlocks: blocks(guest.ramBlocks),
        paused: flag(guest.paused),
        ...foundGuest(guest),
      },
      transfer: transferOffer(object(given.transfer, "transfer")),
    };
  },
};

export const answerWire: Translation<HandshakeAnswer> = {
  toWire: (answer) =>
    answer.kind === "contract"
      ? { contract: { ...answer.contract, deadlineAction: answer.contract.onDeadline } }
      : { refusals: { reasons: answer.refusals } },
  fromWire: (wire) => {
    const given = object(wire, "handshake answer");
    if (given.outcome === "refusals")
      return { kind: "refusals", refusals: refusals(object(given.refusals, "refusals").reasons) };
    return { kind: "contract", contract: contract(object(given.contract, "contract")) };
  },
};

/**
 * Reads a contract. What a destination of protocol 1 leaves out is filled in later, by the offer (completeContract).
 */
const contract = (given: WireObject): Contract => ({
  protocolVersion: whole(given.protocolVersion, "protocol version"),
  codecs: codecs(given.codecs),
  frameBytes: whole(given.frameBytes, "frame size"),
  creditWindowBytes: whole(given.creditWindowBytes, "credit window"),
  destinationQemuVersion: version(given.destinationQemuVersion),
  destinationFreeMemoryBytes: whole(given.destinationFreeMemoryBytes, "free memory"),
  followUpMs: whole(given.followUpMs, "follow-up time"),
  ramBlocks: blocks(given.ramBlocks),
  strategies: knownWords(given.strategies, STRATEGIES, "strategies"),
  strategy: word(orIfEmpty(given.strategy, "precopy"), STRATEGIES, "strategy"),
  postcopy: flag(given.postcopy),
  onDeadline: word(orIfEmpty(given.deadlineAction, "cancel"), DEADLINE_ACTIONS, "deadline_action"),
  postcopyObstacle: said(given.postcopyObstacle, "postcopy_obstacle"),
  comparesDisks: flag(given.comparesDisks),
  warnings: strings(given.warnings ?? [], "warnings")
    .slice(0, REASONS_MAX)
    .map((one) => said(one, "warning")),
  measuresLink: flag(given.measuresLink),
});
