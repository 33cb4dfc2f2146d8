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
