/**
 * The rule that keeps a guest single, as records that are durable before what they allow is done (DESIGN 6).
 *
 *     source:       … ── write granted ── send grant ── … ── write released
 *     destination:  … ── receive grant ── write running ── cont ── answer
 *                                      └─ write refused ── answer
 */

/** What the source may have written about a migration. */
export type SourceRecord =
  | { readonly kind: "plan"; readonly guest: string; readonly destination: string; readonly startedAtMs: number }
  | {
      readonly kind: "granted";
      readonly guest: string;
      readonly destination: string;
      readonly startedAtMs: number;
      readonly grant: OwnershipGrant;
    }
  | {
      readonly kind: "released" | "kept";
      readonly guest: string;
      readonly destination: string;
      readonly startedAtMs: number;
    };

/** What the destination may have written about a migration. */
export type DestinationRecord =
  | { readonly kind: "waiting"; readonly guest: string; readonly qemuPid: number }
  | {
      readonly kind: "running" | "refused";
      readonly guest: string;
      readonly qemuPid: number;
      readonly grant: OwnershipGrant;
    };

/** Passed from the source to the destination once; token in hexadecimal. */
export interface OwnershipGrant {
  readonly token: string;
  readonly epoch: number;
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
  if (grant.token !== expectedToken || record === undefined) return false;
  switch (record.kind) {
    case "waiting":
      return true;
    case "running":
      return record.grant.token === grant.token;
    case "refused":
      return false;
  }
}

/** A record as it was written, or undefined when the value is none: what it says is then never acted upon. */
export function decodeSourceRecord(value: unknown): SourceRecord | undefined {
  const given = fields(value);
  const guest = text(given.guest);
  const destination = text(given.destination);
  const startedAtMs = given.startedAtMs;
  if (guest === undefined || destination === undefined || typeof startedAtMs !== "number") return undefined;
  const common = { guest, destination, startedAtMs };
  switch (given.kind) {
    case "plan":
    case "released":
    case "kept":
      return { kind: given.kind, ...common };
    case "granted": {
      const grant = decodeGrant(given.grant);
      return grant === undefined ? undefined : { kind: "granted", ...common, grant };
    }
    default:
      return undefined;
  }
}

export function decodeDestinationRecord(value: unknown): DestinationRecord | undefined {
  const given = fields(value);
  const guest = text(given.guest);
  const qemuPid = given.qemuPid;
  if (guest === undefined || typeof qemuPid !== "number") return undefined;
  const grant = decodeGrant(given.grant);
  switch (given.kind) {
    case "waiting":
      return { kind: "waiting", guest, qemuPid };
    case "running":
    case "refused":
      return grant === undefined ? undefined : { kind: given.kind, guest, qemuPid, grant };
    default:
      return undefined;
  }
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
