/** What the agents say to each other, between its domain unions and the messages of proto/ferry/v1/peer.proto. */
import type { Refusal } from "../fault.ts";
import type { Standing } from "../protocol/destination-states.ts";
import {
  type Codec,
  type Complete,
  type Contract,
  DEADLINE_ACTIONS,
  type DestinationMessage,
  type HandshakeAnswer,
  type Offer,
  type QemuVersion,
  type RamBlock,
  type Running,
  type SettleAnswer,
  type SettleCall,
  type SourceMessage,
  STRATEGIES,
  type Strategy,
} from "../protocol/messages.ts";
import type { Translation } from "./proto-files.ts";
import {
  bytes,
  flag,
  list,
  malformed,
  number,
  numbers,
  object,
  strings,
  text,
  type WireObject,
  whole,
} from "./wire-read.ts";

const version = (wire: unknown): QemuVersion => {
  const given = object(wire, "QEMU version");
  return { major: whole(given.major, "major"), minor: whole(given.minor, "minor"), micro: whole(given.micro, "micro") };
};

/** As many as the reader of QEMU's stream takes. */
const BLOCKS_MAX = 4096;

const blocks = (wire: unknown): readonly RamBlock[] => {
  if (Array.isArray(wire) && wire.length > BLOCKS_MAX) throw malformed("RAM blocks", `are ${wire.length}`);
  return list(wire, "RAM blocks").map((block) => ({
    name: text(block.name, "block name"),
    byteLength: whole(block.byteLength, "block length"),
    pageSize: whole(block.pageSize, "block page size"),
  }));
};

/** It names files of the destination. */
const migrationId = (wire: unknown): string => {
  const id = text(wire, "migration id");
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(id)) throw malformed("migration id", `is ${JSON.stringify(id.slice(0, 80))}`);
  return id;
};

/** An empty one would be the token of every failure that refuses nothing. */
const token = (wire: unknown): Uint8Array => {
  const given = bytes(wire, "token");
  if (given.length === 0 || given.length > 64) throw malformed("token", `has ${given.length} bytes`);
  return given;
};

/** A peer of protocol 1 says none: it copies before it stops, or stops first, which is the source's affair. */
const strategy = (wire: unknown): Strategy => (wire === "" ? "precopy" : word(wire, STRATEGIES, "strategy"));

/** Codecs that this build does not know are no codecs of the contract. */
const codecs = (wire: unknown): readonly Codec[] =>
  strings(wire, "codecs").filter((one): one is Codec => one === "xbzrle" || one === "zstd");

/** What a peer says goes into logs, and to operators: a few sentences are enough. */
const SAID_CHARACTERS_MAX = 2000;
const REASONS_MAX = 64;

const said = (wire: unknown, field: string): string => text(wire, field).slice(0, SAID_CHARACTERS_MAX);

const refusals = (wire: unknown): readonly Refusal[] => {
  const given = Array.isArray(wire) ? wire.slice(0, REASONS_MAX) : wire;
  return list(given, "reasons").map((one) => ({ code: said(one.code, "code"), message: said(one.message, "message") }));
};

export const offerWire: Translation<Offer> = {
  toWire: (offer) => ({
    ...offer,
    guest: { ...offer.guest },
    transfer: { ...offer.transfer },
  }),
  fromWire: (wire) => {
    const given = object(wire, "handshake");
    const guest = object(given.guest, "guest");
    const transfer = object(given.transfer, "transfer");
    const onDeadline = word(transfer.onDeadline, DEADLINE_ACTIONS, "on_deadline");
    const features = object(guest.cpuFeatures ?? {}, "cpu_features");
    return {
      protocolVersions: numbers(given.protocolVersions, "protocol versions"),
      migrationId: migrationId(given.migrationId),
      token: token(given.token),
      sourceAddress: text(given.sourceAddress, "source address"),
      dryRun: flag(given.dryRun),
      guest: {
        name: text(guest.name, "guest name"),
        definitionDigest: text(guest.definitionDigest, "definition digest"),
        machineType: text(guest.machineType, "machine type"),
        qemuVersion: version(guest.qemuVersion),
        cpuModel: text(guest.cpuModel, "CPU model"),
        cpuFeatures: Object.fromEntries(Object.entries(features).map(([key, word]) => [key, whole(word, key)])),
        ramBlocks: blocks(guest.ramBlocks),
      },
      transfer: {
        codecs: codecs(transfer.codecs),
        downtimeTargetMs: whole(transfer.downtimeTargetMs, "downtime target"),
        deadlineMs: whole(transfer.deadlineMs, "deadline"),
        onDeadline,
        frameBytes: whole(transfer.frameBytes, "frame size"),
        creditWindowBytes: whole(transfer.creditWindowBytes, "credit window"),
        verify: flag(transfer.verify),
        strategy: strategy(transfer.strategy),
      },
    };
  },
};

export const answerWire: Translation<HandshakeAnswer> = {
  toWire: (answer) =>
    answer.kind === "contract" ? { contract: { ...answer.contract } } : { refusals: { reasons: answer.refusals } },
  fromWire: (wire) => {
    const given = object(wire, "handshake answer");
    if (given.outcome === "refusals")
      return { kind: "refusals", refusals: refusals(object(given.refusals, "refusals").reasons) };
    return { kind: "contract", contract: contract(object(given.contract, "contract")) };
  },
};

const contract = (given: WireObject): Contract => ({
  protocolVersion: whole(given.protocolVersion, "protocol version"),
  codecs: codecs(given.codecs),
  frameBytes: whole(given.frameBytes, "frame size"),
  creditWindowBytes: whole(given.creditWindowBytes, "credit window"),
  destinationQemuVersion: version(given.destinationQemuVersion),
  destinationFreeMemoryBytes: whole(given.destinationFreeMemoryBytes, "free memory"),
  followUpMs: whole(given.followUpMs, "follow-up time"),
  ramBlocks: blocks(given.ramBlocks),
  strategy: strategy(given.strategy),
  postcopy: flag(given.postcopy),
});

/** Oneofs have the domain's names, so going out is a matter of nesting. */
const nest = ({ kind, ...fields }: { kind: string }): object => ({ [kind]: fields });

export const destinationMessageWire: Translation<DestinationMessage> = {
  toWire: nest,
  fromWire: (wire) => {
    const given = object(wire, "message");
    const kind = given.message;
    const inner = typeof kind === "string" ? object(given[kind], kind) : {};
    switch (kind) {
      case "hello":
        return {
          kind,
          migrationId: text(inner.migrationId, "migration id"),
          token: bytes(inner.token, "token"),
          attempt: whole(inner.attempt, "attempt"),
          received: whole(inner.received, "received"),
          generation: whole(inner.generation, "generation"),
          restarted: flag(inner.restarted),
        };
      case "ack":
        return {
          kind,
          sequence: whole(inner.sequence, "sequence"),
          appliedBytes: whole(inner.appliedBytes, "applied"),
        };
      case "clockReply":
        return { kind, nonce: whole(inner.nonce, "nonce"), destinationTimeUs: whole(inner.destinationTimeUs, "time") };
      case "loaded":
        return {
          kind,
          lastSequence: whole(inner.lastSequence, "last sequence"),
          lastByteAtUs: whole(inner.lastByteAtUs, "time"),
          loadedAtUs: whole(inner.loadedAtUs, "time"),
        };
      case "pageDigests":
        return {
          kind,
          start: whole(inner.start, "start"),
          byteLength: whole(inner.byteLength, "length"),
          digests: bytes(inner.digests, "digests"),
          last: flag(inner.last),
        };
      case "running":
        return { kind, ...running(inner) };
      case "pageRequest":
        return {
          kind,
          firstPage: whole(inner.firstPage, "first page"),
          pageCount: whole(inner.pageCount, "page count"),
        };
      case "pong":
        return { kind, value: whole(inner.value, "value") };
      case "missing":
        return {
          kind,
          firstPage: whole(inner.firstPage, "first page"),
          pageCount: whole(inner.pageCount, "page count"),
          bits: bytes(inner.bits, "bits"),
          last: flag(inner.last),
        };
      case "complete":
        return { kind, ...complete(inner) };
      case "failure":
        return failure(inner);
      default:
        throw malformed("message", "is of a kind that this agent does not know");
    }
  },
};

/** Frames do not come this way (frame-wire.ts), unless a peer orders its fields otherwise. */
export const sourceMessageWire: Translation<SourceMessage> = {
  toWire: nest,
  fromWire: (wire) => {
    const given = object(wire, "message");
    const kind = given.message;
    const inner = typeof kind === "string" ? object(given[kind], kind) : {};
    switch (kind) {
      case "welcome":
        return {
          kind,
          received: whole(inner.received, "received"),
          generation: whole(inner.generation, "generation"),
        };
      case "resume":
        return { kind };
      case "probe":
        return { kind, sequence: whole(inner.sequence, "sequence"), padding: bytes(inner.padding, "padding") };
      case "layout":
        return { kind, blocks: blocks(inner.blocks), ramSectionId: whole(inner.ramSectionId, "section") };
      case "clockPing":
        return { kind, nonce: whole(inner.nonce, "nonce") };
      case "endOfStream":
        return { kind, lastSequence: whole(inner.lastSequence, "last sequence") };
      case "verifyRequest":
        return {
          kind,
          start: whole(inner.start, "start"),
          byteLength: whole(inner.byteLength, "length"),
          last: flag(inner.last),
        };
      case "grant":
        return { kind, token: bytes(inner.token, "token"), epoch: whole(inner.epoch, "epoch") };
      case "failure":
        return failure(inner);
      default:
        throw malformed("message", "is of a kind that this agent does not know");
    }
  },
};

const running = (inner: WireObject): Running => ({
  epoch: whole(inner.epoch, "epoch"),
  resumedAtUs: whole(inner.resumedAtUs, "time"),
  grantedAtUs: whole(inner.grantedAtUs, "time"),
  agentCpuSeconds: number(inner.agentCpuSeconds, "CPU seconds"),
  agentPeakMemoryBytes: whole(inner.agentPeakMemoryBytes, "peak memory"),
});

function complete(inner: WireObject): Complete {
  const service = object(inner.service, "service times");
  return {
    completedAtUs: whole(inner.completedAtUs, "time"),
    service: {
      requests: whole(service.requests, "requests"),
      medianMs: number(service.medianMs, "median"),
      p99Ms: number(service.p99Ms, "p99"),
      maxMs: number(service.maxMs, "longest"),
    },
    agentCpuSeconds: number(inner.agentCpuSeconds, "CPU seconds"),
    agentPeakMemoryBytes: whole(inner.agentPeakMemoryBytes, "peak memory"),
  };
}

const ASKS = ["standing", "grant", "withdraw"] as const;
const STANDINGS: readonly Standing[] = ["waiting", "starting", "pulling", "running", "refused", "lost", "unknown"];

/** One of the words that there are. */
function word<W extends string>(value: unknown, words: readonly W[], field: string): W {
  const found = words.find((one) => one === value);
  if (found === undefined) throw malformed(field, `is ${text(value, field)}`);
  return found;
}

export const settleCallWire: Translation<SettleCall> = {
  toWire: (call) => ({ ...call }),
  fromWire: (wire) => {
    const given = object(wire, "request");
    return {
      migrationId: migrationId(given.migrationId),
      token: token(given.token),
      epoch: whole(given.epoch, "epoch"),
      ask: word(given.ask, ASKS, "ask"),
    };
  },
};

export const settleAnswerWire: Translation<SettleAnswer> = {
  toWire: (answer) => ({ ...answer }),
  fromWire: (wire) => {
    const given = object(wire, "answer");
    const standing = word(given.standing, STANDINGS, "standing");
    const reason = said(given.reason, "reason");
    const seen = given.running ?? undefined;
    return seen === undefined ? { standing, reason } : { standing, reason, running: running(object(seen, "running")) };
  },
};

const failure = (inner: WireObject) =>
  ({
    kind: "failure",
    code: said(inner.code, "code"),
    message: said(inner.message, "message"),
    refusedToken: bytes(inner.refusedToken, "refused token"),
  }) as const;
