/**
 * The rule that keeps a guest single, so that it never runs at both hosts: an agent does what a journal record allows
 * only once that record is on the disk. This file has the records and the rules, as pure functions. It does not write
 * the records (shared/runtime/journal/), and it does not say in which state an agent goes on (source-states.ts,
 * destination-states.ts).
 *
 *     source:       … ── write granted ── send grant ── … ── write released
 *     destination:  … ── receive grant ── write running ── cont ── answer      (no cont where the grant says paused)
 *                                      └─ write refused ── answer
 */

import type { Codec } from "./messages.ts";

/** The number of a grant within its migration. A migration has only one: a source that starts again repeats it. */
export const EPOCH = 1;

/** The permission to run the guest, which the source gives to the destination once. */
export interface OwnershipGrant {
  /** The migration's one-time secret, hexadecimal. */
  readonly token: string;
  readonly epoch: number;
  /**
   * True when the guest's operator has paused the guest: the agent that owns the guest does not start it. In the
   * destination's records the value counts only from `running` on, since the grant has come by then.
   */
  readonly paused: boolean;
}

/**
 * The process of a QEMU. `identity` is made of boot, pid and start time, so no later process on this host has the same
 * one (shared/runtime/host/process-identity.ts). An agent says nothing to a QEMU that is not the process of the record.
 */
export interface QemuProcess {
  readonly pid: number;
  readonly identity: string;
}

/** QEMU's migration settings as the agent found them before it changed them, so that it can put them back. */
export interface SavedSettings {
  readonly capabilities: Readonly<Record<string, boolean>>;
  readonly parameters: Readonly<Record<string, number | string | boolean>>;
}

/** The RAM blocks of QEMU's stream, in the order of the stream, and the id of the section that has their pages. */
export interface StreamLayout {
  readonly ramSectionId: number;
  readonly blocks: readonly { readonly name: string; readonly byteLength: number }[];
}

/** What a source agent needs to go on with a post-copy that has lost its stream or an agent. */
export interface SourcePostcopy extends StreamLayout {
  /**
   * Set when QEMU had no pages left to send in post-copy, and completed its migration as in precopy: the destination
   * has every page. In this case too, this agent has stopped the guest.
   */
  readonly complete?: true;
  /** This field and the two fields below are taken from the contract. */
  readonly frameBytes: number;
  readonly creditWindowBytes: number;
  readonly codecs: readonly Codec[];
}

/**
 * The kinds of a source's records. `plan`: a migration is under way, and the guest still belongs to this host.
 * `granted`: the guest is granted to the destination, or is about to be. `released`: this host has no part in the guest
 * any more. `kept`: the guest was not moved.
 */
export const SOURCE_RECORDS = ["plan", "granted", "released", "kept"] as const;
/** The journal record of a source agent about a migration. */
export interface SourceRecord {
  readonly kind: (typeof SOURCE_RECORDS)[number];
  readonly guest: string;
  readonly destination: string;
  /**
   * Orders the migrations of this journal: of two records of a guest, the record with the larger number is the later
   * one.
   */
  readonly sequence: number;
  /**
   * When the migration began, milliseconds since the epoch; for people. Clocks are set back, so this time orders only
   * records of a version that wrote no `sequence` (may-start.ts).
   */
  readonly startedAtMs: number;
  /**
   * The guest's QEMU. It is missing only in records of a version that did not write it. For such a record an agent says
   * nothing to any QEMU.
   */
  readonly qemu?: QemuProcess;
  /**
   * The grant. The source does not send it before `granted` is on the disk. Until then its token only proves to the
   * destination whose migration this is.
   */
  readonly grant: OwnershipGrant;
  readonly settings?: SavedSettings;
  /**
   * Set only in `plan`: this agent is about to retire the QEMU. If that QEMU is found in `postmigrate` later, this
   * migration has retired it.
   */
  readonly retiring?: true;
  /**
   * Set only in `granted`: somebody other than an agent has started the guest here, and the grant was withdrawn. The
   * agent never repeats the grant, whatever becomes of the QEMU in which the guest was started.
   */
  readonly withdrawn?: true;
  /**
   * Set once post-copy has begun. The agent itself stops the guest for post-copy, so a guest that is found paused was
   * running before. If QEMU has lost its stream, the agent goes on with this layout. What QEMU does no longer shows
   * whether the guest was granted (docs/design/post-copy.md#who-owns-the-guest).
   */
  readonly postcopy?: SourcePostcopy;
  /** When the migration ended, milliseconds since the epoch; only in `released` and `kept`. */
  readonly endedAtMs?: number;
  /**
   * Why the migration failed, for an operator who asks after a restart of the agent. It is always set in `kept`, and in
   * `released` only if the guest has lost pages in post-copy (*stranded*).
   */
  readonly reason?: { readonly code: string; readonly message: string };
  /** Set only in `kept`: the destination has not heard yet that the guest stayed here, and is told until it has. */
  readonly untold?: true;
}

/** What a destination agent needs to go on with a post-copy that has lost its stream or an agent. */
export interface DestinationPostcopy extends SourcePostcopy {
  /** The address at which the destination dials the source. */
  readonly sourceAddress: string;
}

/**
 * The kinds of a destination's records. `waiting`: the guest comes, and this agent was not granted it. `running`: the
 * guest was granted, or somebody else has started it in post-copy (`ungranted`), so it may have run here. `arrived`:
 * the guest was seen to run here, or to be paused as it was granted. `refused`: this agent never starts the guest.
 */
export const DESTINATION_RECORDS = ["waiting", "running", "arrived", "refused"] as const;
/** The journal record of a destination agent about a migration. */
export interface DestinationRecord {
  readonly kind: (typeof DESTINATION_RECORDS)[number];
  readonly guest: string;
  /** Address of the source agent, from its offer. */
  readonly source: string;
  /**
   * The caller that made the offer, as `Caller.name` (shared/link/link.ts). Records of the previous version of Ferry
   * lack it.
   */
  readonly caller?: string;
  /** Orders the migrations of this journal, as at the source. */
  readonly sequence: number;
  /** When the migration began, milliseconds since the epoch; for people, as at the source. */
  readonly startedAtMs: number;
  /** The guest's QEMU here. It is missing until the agent has started one. */
  readonly qemu?: QemuProcess;
  readonly grant: OwnershipGrant;
  /** Set in `waiting` and `running` once QEMU has loaded post-copy's package. */
  readonly postcopy?: DestinationPostcopy;
  /**
   * Set only in `arrived`, and in `running` of post-copy: somebody other than an agent has started the guest before it
   * was granted. This agent says no `cont` for the guest, and `ferry may-start` does not allow a new start. A grant
   * that comes later removes the note.
   */
  readonly ungranted?: true;
  /**
   * Set only in `running` of post-copy: the guest was seen to run. A guest that is found paused later was therefore
   * paused by its operator.
   */
  readonly ran?: true;
  /** True when the source will say `kept` once its journal says that the guest stayed at the source. */
  readonly saysKept?: true;
  /** Set only in `refused`: the reason, for a source that asks late. */
  readonly reason?: string;
  /**
   * Set only in `refused`: no copy needs to be kept any more. The source has heard the refusal, or an operator has
   * ended the copy, or there is no copy.
   */
  readonly heard?: true;
}

/**
 * Tells whether the source may run its guest: only if it has not granted the guest, or the destination has refused this
 * very grant.
 * @param refusedToken the token of the grant that the destination has refused; undefined where it has refused none
 */
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

/**
 * Tells whether the destination may run the guest: only by a grant with the token of this migration, which the
 * destination has not refused.
 * @param expectedToken the token of this migration, hexadecimal
 */
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

/**
 * Tells whether an agent passes over this record, since a later migration of the same guest has begun: the agent then
 * says nothing to any QEMU for this record. A later migration begins only after the earlier one has ended. So the
 * migration of this record has ended, even if a full disk kept its end from being written. A `granted` record is never
 * passed over, since only its destination can settle it.
 * @param others the other records of the guest
 */
export const isPassedOver = (
  { kind, sequence }: Pick<SourceRecord, "kind" | "sequence">,
  others: readonly { readonly sequence: number }[],
): boolean => kind !== "granted" && others.some((other) => other.sequence > sequence);

/**
 * Gives the `sequence` of a new record: one more than the largest in the journal, and never less than the clock in
 * milliseconds, so that the sequences of the two journals of a host can be compared (may-start.ts).
 * @param nowMs the present time, milliseconds since the epoch
 */
export const nextSequence = (known: readonly { readonly sequence: number }[], nowMs: number): number =>
  Math.max(Math.floor(nowMs), 1 + known.reduce((most, { sequence }) => Math.max(most, sequence), 0));
