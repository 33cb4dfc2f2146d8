/**
 * Translates what the agents say to each other after the handshake between its domain unions and the messages of
 * proto/ferry/v1/peer.proto.
 */
import type { Standing } from "../../protocol/destination-states.ts";
import type {
  Complete,
  DestinationMessage,
  Hello,
  Running,
  SettleAnswer,
  SettleCall,
  SourceMessage,
} from "../../protocol/stream-messages.ts";
import type { Translation } from "./proto-files.ts";
import { blocks, migrationId, said, token } from "./wire-handshake.ts";
import { bytes, codeText, flag, malformed, number, object, type WireObject, whole, word } from "./wire-read.ts";

/** Makes the wire's form of a domain message, whose `kind` is the name of its field in the oneof. */
const nest = ({ kind, ...fields }: { kind: string }): object => ({ [kind]: fields });

export const destinationMessageWire: Translation<DestinationMessage> = {
  toWire: nest,
  fromWire: (wire) => {
    const given = object(wire, "message");
    const kind = given.message;
    const inner = typeof kind === "string" ? object(given[kind], kind) : {};
    switch (kind) {
      case "hello":
        return hello(inner);
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

/** Translates every message of a source but frames, which frame-wire.ts writes and reads. */
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
        return { kind, nonce: whole(inner.nonce, "nonce"), received: whole(inner.received, "received") };
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
        return {
          kind,
          token: bytes(inner.token, "token"),
          epoch: whole(inner.epoch, "epoch"),
          paused: flag(inner.paused),
        };
      case "failure":
        return failure(inner);
      default:
        throw malformed("message", "is of a kind that this agent does not know");
    }
  },
};

const hello = (inner: WireObject): Hello => ({
  kind: "hello",
  migrationId: migrationId(inner.migrationId),
  token: bytes(inner.token, "token"),
  attempt: whole(inner.attempt, "attempt"),
  received: whole(inner.received, "received"),
  generation: whole(inner.generation, "generation"),
  restarted: flag(inner.restarted),
});

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

export const settleCallWire: Translation<SettleCall> = {
  // an agent of the version before knows `withdraw`, but not `kept`, which says that the source has written down that
  // the guest stays there: so `kept` is sent as `withdraw` with a flag
  toWire: ({ ask, ...call }) => ({ ...call, ask: ask === "kept" ? "withdraw" : ask, kept: ask === "kept" }),
  fromWire: (wire) => {
    const given = object(wire, "request");
    const ask = word(given.ask, ASKS, "ask");
    return {
      migrationId: migrationId(given.migrationId),
      token: token(given.token),
      epoch: whole(given.epoch, "epoch"),
      ask: ask === "withdraw" && flag(given.kept) ? "kept" : ask,
      paused: flag(given.paused),
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
    code: codeText(inner.code),
    message: said(inner.message, "message"),
    refusedToken: bytes(inner.refusedToken, "refused token"),
  }) as const;
