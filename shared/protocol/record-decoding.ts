/**
 * Reads the records of the journals from the JSON on the disk. A value that is no record is never guessed at. The
 * checksum of a file is checked before (shared/runtime/journal/journal-file.ts).
 */
import { defined } from "../defined.ts";
import type { Codec } from "./messages.ts";
import {
  DESTINATION_RECORDS,
  type DestinationRecord,
  type OwnershipGrant,
  type QemuProcess,
  type SavedSettings,
  SOURCE_RECORDS,
  type SourcePostcopy,
  type SourceRecord,
  type StreamLayout,
} from "./ownership.ts";

/** Reads a record of a source. @returns undefined when the value is no record; then nothing may be done for it */
export function decodeSourceRecord(value: unknown): SourceRecord | undefined {
  const given = fields(value);
  const kind = SOURCE_RECORDS.find((one) => one === given.kind);
  const guest = text(given.guest);
  const destination = text(given.destination);
  const { startedAtMs } = given;
  const grant = decodeGrant(given.grant);
  if (kind === undefined || guest === undefined || destination === undefined || grant === undefined) return undefined;
  if (typeof startedAtMs !== "number") return undefined;
  const qemu = decodeProcess(given.qemu);
  const settings = decodeSettings(given.settings);
  const postcopy = decodePostcopy(given.postcopy);
  const reason = decodeReason(given.reason);
  const record = { kind, guest, destination, sequence: decodeSequence(given.sequence), startedAtMs, grant };
  return {
    ...record,
    ...defined({ qemu }),
    ...(given.retiring === true ? { retiring: true } : {}),
    ...(given.withdrawn === true ? { withdrawn: true } : {}),
    ...(given.untold === true ? { untold: true } : {}),
    ...(typeof given.endedAtMs === "number" ? { endedAtMs: given.endedAtMs } : {}),
    ...defined({ settings, postcopy, reason }),
  };
}

function decodePostcopy(value: unknown): SourcePostcopy | undefined {
  const given = fields(value);
  const layout = decodeLayout(given);
  const { frameBytes, creditWindowBytes, codecs } = given;
  if (layout === undefined || typeof frameBytes !== "number" || typeof creditWindowBytes !== "number") return undefined;
  const complete = given.complete === true ? { complete: true as const } : {};
  return { ...layout, frameBytes, creditWindowBytes, codecs: decodeCodecs(codecs), ...complete };
}

const decodeCodecs = (value: unknown): readonly Codec[] =>
  Array.isArray(value) ? value.filter((one): one is Codec => one === "xbzrle" || one === "zstd") : [];

function decodeLayout(given: Readonly<Record<string, unknown>>): StreamLayout | undefined {
  const { ramSectionId, blocks } = given;
  if (typeof ramSectionId !== "number" || !Array.isArray(blocks)) return undefined;
  const read = blocks.map((block: unknown) => {
    const { name, byteLength } = fields(block);
    return typeof name === "string" && typeof byteLength === "number" ? { name, byteLength } : undefined;
  });
  const known = read.filter((block) => block !== undefined);
  return known.length === read.length ? { ramSectionId, blocks: known } : undefined;
}

function decodeReason(value: unknown): { code: string; message: string } | undefined {
  const given = fields(value);
  const [code, message] = [text(given.code), text(given.message)];
  return code === undefined || message === undefined ? undefined : { code, message };
}

/**
 * Reads a destination agent's journal record, as decodeSourceRecord() reads one of a source agent. The previous version
 * of Ferry wrote the QEMU process as `qemuPid` and `qemuProcess` and not as `qemu`, and it wrote no `source`. Where
 * `source` is missing, the source's address is taken from `postcopy.sourceAddress`, or is empty without that.
 */
export function decodeDestinationRecord(value: unknown): DestinationRecord | undefined {
  const given = fields(value);
  const kind = DESTINATION_RECORDS.find((one) => one === given.kind);
  const guest = text(given.guest);
  const grant = decodeGrant(given.grant);
  if (kind === undefined || guest === undefined || grant === undefined) return undefined;
  const qemu = decodeProcess(given.qemu) ?? decodeProcess({ pid: given.qemuPid, identity: given.qemuProcess });
  const postcopy = decodePostcopy(given.postcopy);
  const sourceAddress = text(fields(given.postcopy).sourceAddress);
  const source = text(given.source) ?? sourceAddress ?? "";
  const startedAtMs = typeof given.startedAtMs === "number" ? given.startedAtMs : 0;
  const reason = text(given.reason);
  const caller = text(given.caller);
  return {
    ...{ kind, guest, source, sequence: decodeSequence(given.sequence), startedAtMs, grant },
    ...defined({ caller, qemu }),
    ...(postcopy === undefined || sourceAddress === undefined ? {} : { postcopy: { ...postcopy, sourceAddress } }),
    ...(given.ungranted === true ? { ungranted: true } : {}),
    ...(given.ran === true ? { ran: true } : {}),
    ...(given.saysKept === true ? { saysKept: true } : {}),
    ...defined({ reason }),
    ...(given.heard === true ? { heard: true } : {}),
  };
}

/**
 * Reads a process.
 * @returns undefined where its identity is missing or empty: the agent that wrote the record did not know the process
 *   yet, or was of a version that did not write it
 */
function decodeProcess(value: unknown): QemuProcess | undefined {
  const { pid, identity } = fields(value);
  return typeof pid === "number" && typeof identity === "string" && identity !== "" ? { pid, identity } : undefined;
}

/**
 * Reads a sequence. Records of the previous version of Ferry have none, and count as earlier than all records that have
 * one.
 */
const decodeSequence = (value: unknown): number => (typeof value === "number" ? value : 0);

function decodeSettings(value: unknown): SavedSettings | undefined {
  if (value === undefined) return undefined;
  const given = fields(value);
  const capabilities = Object.entries(fields(given.capabilities)).flatMap(([name, one]) =>
    typeof one === "boolean" ? [[name, one] as const] : [],
  );
  const parameters = Object.entries(fields(given.parameters)).flatMap(([name, one]) =>
    typeof one === "number" || typeof one === "string" || typeof one === "boolean" ? [[name, one] as const] : [],
  );
  return { capabilities: Object.fromEntries(capabilities), parameters: Object.fromEntries(parameters) };
}

function decodeGrant(value: unknown): OwnershipGrant | undefined {
  const given = fields(value);
  const token = text(given.token);
  if (token === undefined || typeof given.epoch !== "number") return undefined;
  // a record of protocol 1 does not say whether the guest was paused: the guest ran
  return { token, epoch: given.epoch, paused: given.paused === true };
}

const fields = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null ? Object.fromEntries(Object.entries(value)) : {};

const text = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined);
