/**
 * The rule that keeps a guest single, as records that are durable before what they allow is done (DESIGN 6).
 *
 *     source:       … ── write granted ── send grant ── … ── write released
 *     destination:  … ── receive grant ── write running ── cont ── answer      (no cont where the grant says paused)
 *                                      └─ write refused ── answer
 */

import type { Codec } from "./messages.ts";

/** Passed from the source to the destination once; token in hexadecimal. */
export interface OwnershipGrant {
  readonly token: string;
  readonly epoch: number;
  /**
   * The guest was paused by whoever operates it: whoever owns it does not start it. In the destination's records from `running`
   * on, which is where the grant has come.
   */
  readonly paused: boolean;
}

/** QEMU's migration settings as they were found, to be put back. */
export interface SavedSettings {
  readonly capabilities: Readonly<Record<string, boolean>>;
  readonly parameters: Readonly<Record<string, number | string | boolean>>;
}

/** The blocks of QEMU's stream in its order, and the section that has their pages. */
export interface StreamLayout {
  readonly ramSectionId: number;
  readonly blocks: readonly { readonly name: string; readonly byteLength: number }[];
}

/** What a source needs to take a post-copy up again. */
export interface SourcePostcopy extends StreamLayout {
  /** Of the contract. */
  readonly frameBytes: number;
  readonly creditWindowBytes: number;
  readonly codecs: readonly Codec[];
}

export const SOURCE_RECORDS = ["plan", "granted", "released", "kept"] as const;
/** What the source may have written about a migration. */
export interface SourceRecord {
  readonly kind: (typeof SOURCE_RECORDS)[number];
  readonly guest: string;
  readonly destination: string;
  readonly startedAtMs: number;
  /** Given only from `granted` on; before, it proves to the destination whose migration this is. */
  readonly grant: OwnershipGrant;
  readonly settings?: SavedSettings;
  /**
   * Post-copy has begun: this agent stops the guest itself, so a paused one was running, and a QEMU that lost its stream is
   * to be taken up with this layout. What QEMU does says nothing of the grant any more.
   */
  readonly postcopy?: SourcePostcopy;
  /** Of `released` and `kept`: when it ended. */
  readonly endedAtMs?: number;
  /** Of `kept`: why, for whoever asks after a restart. */
  readonly reason?: { readonly code: string; readonly message: string };
}

/** What a destination needs to take a post-copy up again. */
export interface DestinationPostcopy extends SourcePostcopy {
  /** Where it dials the source. */
  readonly sourceAddress: string;
}

export const DESTINATION_RECORDS = ["waiting", "running", "arrived", "refused"] as const;
/** What the destination may have written about a migration; `arrived`: the guest was seen running here. */
export interface DestinationRecord {
  readonly kind: (typeof DESTINATION_RECORDS)[number];
  readonly guest: string;
  /** Of its QEMU: the process, and what tells it from a later one of that number (shared/runtime/process-identity.ts). */
  readonly qemuPid: number;
  readonly qemuProcess: string;
  readonly grant: OwnershipGrant;
  /** QEMU was given post-copy's package: what is needed to take it up again. */
  readonly postcopy?: DestinationPostcopy;
}

/** May the source run its guest? Only if it never granted it, or the very grant was refused. */
export function sourceMayRun(record: SourceRecord | undefined, refusedToken: string | undefined): boolean {
  if (record === undefined) return true;
  switch (record.kind) {
    case "plan":
    case "kept":
      return true;
    case "granted":
      return refusedToken === record.grant.token;
    case "released":
      return false;
  }
}

/** May the destination run the guest? Only on a grant with its own token, which it has not refused. */
export function destinationMayRun(
  record: DestinationRecord | undefined,
  grant: OwnershipGrant,
  expectedToken: string,
): boolean {
  if (grant.token !== expectedToken || record === undefined || grant.epoch !== record.grant.epoch) return false;
  switch (record.kind) {
    case "waiting":
      return true;
    case "running":
    case "arrived":
      return record.grant.token === grant.token;
    case "refused":
      return false;
  }
}

/** A record as it was written, or undefined when the value is none: what it says is then never acted upon. */
export function decodeSourceRecord(value: unknown): SourceRecord | undefined {
  const given = fields(value);
  const kind = SOURCE_RECORDS.find((one) => one === given.kind);
  const guest = text(given.guest);
  const destination = text(given.destination);
  const { startedAtMs } = given;
  const grant = decodeGrant(given.grant);
  if (kind === undefined || guest === undefined || destination === undefined || grant === undefined) return undefined;
  if (typeof startedAtMs !== "number") return undefined;
  const settings = decodeSettings(given.settings);
  const postcopy = decodePostcopy(given.postcopy);
  const reason = decodeReason(given.reason);
  const record = { kind, guest, destination, startedAtMs, grant };
  const ended = typeof given.endedAtMs === "number" ? { endedAtMs: given.endedAtMs } : {};
  return {
    ...record,
    ...ended,
    ...(settings === undefined ? {} : { settings }),
    ...(postcopy === undefined ? {} : { postcopy }),
    ...(reason === undefined ? {} : { reason }),
  };
}

function decodePostcopy(value: unknown): SourcePostcopy | undefined {
  const given = fields(value);
  const layout = decodeLayout(given);
  const { frameBytes, creditWindowBytes, codecs } = given;
  if (layout === undefined || typeof frameBytes !== "number" || typeof creditWindowBytes !== "number") return undefined;
  return { ...layout, frameBytes, creditWindowBytes, codecs: decodeCodecs(codecs) };
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

export function decodeDestinationRecord(value: unknown): DestinationRecord | undefined {
  const given = fields(value);
  const kind = DESTINATION_RECORDS.find((one) => one === given.kind);
  const guest = text(given.guest);
  const { qemuPid } = given;
  const qemuProcess = text(given.qemuProcess);
  const grant = decodeGrant(given.grant);
  if (kind === undefined || guest === undefined || grant === undefined) return undefined;
  if (typeof qemuPid !== "number" || qemuProcess === undefined) return undefined;
  const record = { kind, guest, qemuPid, qemuProcess, grant };
  const postcopy = decodePostcopy(given.postcopy);
  const sourceAddress = text(fields(given.postcopy).sourceAddress);
  return postcopy === undefined || sourceAddress === undefined
    ? record
    : { ...record, postcopy: { ...postcopy, sourceAddress } };
}

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
  // a record of protocol 1 does not say it: such a guest ran
  return { token, epoch: given.epoch, paused: given.paused === true };
}

const fields = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null ? Object.fromEntries(Object.entries(value)) : {};

const text = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined);
