/**
 * The rule that keeps a guest single, as records that are durable before what they allow is done (DESIGN 6).
 *
 *     source:       … ── write granted ── send grant ── … ── write released
 *     destination:  … ── receive grant ── write running ── cont ── answer
 *                                      └─ write refused ── answer
 */

/** Passed from the source to the destination once; token in hexadecimal. */
export interface OwnershipGrant {
  readonly token: string;
  readonly epoch: number;
}

/** QEMU's migration settings as they were found, to be put back. */
export interface SavedSettings {
  readonly capabilities: Readonly<Record<string, boolean>>;
  readonly parameters: Readonly<Record<string, number | string | boolean>>;
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
  /** Of `released` and `kept`: when it ended. */
  readonly endedAtMs?: number;
  /** Of `kept`: why, for whoever asks after a restart. */
  readonly reason?: { readonly code: string; readonly message: string };
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
  const reason = decodeReason(given.reason);
  const record = { kind, guest, destination, startedAtMs, grant };
  const ended = typeof given.endedAtMs === "number" ? { endedAtMs: given.endedAtMs } : {};
  return {
    ...record,
    ...ended,
    ...(settings === undefined ? {} : { settings }),
    ...(reason === undefined ? {} : { reason }),
  };
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
  return { kind, guest, qemuPid, qemuProcess, grant };
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
  return { token, epoch: given.epoch };
}

const fields = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null ? Object.fromEntries(Object.entries(value)) : {};

const text = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined);
