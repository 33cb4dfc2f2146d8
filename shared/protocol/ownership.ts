/**
 * The rule that keeps a guest single, as records that are durable before what they allow is done (DESIGN 6).
 *
 *     source:       … ── write granted ── send grant ── … ── write released
 *     destination:  … ── receive grant ── write running ── cont ── answer      (no cont where the grant says paused)
 *                                      └─ write refused ── answer
 */

import type { Codec } from "./messages.ts";

/** Counts the grants of a migration. There is one: a source that starts again repeats it. */
export const EPOCH = 1;

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

/**
 * The process of a QEMU. `identity` tells it from every later process of the same pid on this host: boot, pid and start
 * time (shared/runtime/host/process-identity.ts). No agent says anything to a QEMU that is not the process of the record.
 */
export interface QemuProcess {
  readonly pid: number;
  readonly identity: string;
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
  /**
   * QEMU had nothing left to follow, and completed as of precopy: the destination has every page. The guest was stopped
   * by this agent all the same.
   */
  readonly complete?: true;
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
  /**
   * Orders the migrations of this journal: of two records of a guest the one with the larger number is the later one.
   */
  readonly sequence: number;
  /** Milliseconds since the epoch, for people only: nothing is ordered by it, because clocks are set back. */
  readonly startedAtMs: number;
  /**
   * Missing only in records of a version that did not write it. An agent then says nothing to any QEMU for this record.
   */
  readonly qemu?: QemuProcess;
  /** Given only from `granted` on; before, it proves to the destination whose migration this is. */
  readonly grant: OwnershipGrant;
  readonly settings?: SavedSettings;
  /**
   * Only in `plan`: this agent is about to retire the QEMU. If the QEMU is found in `postmigrate`, this migration
   * retired it.
   */
  readonly retiring?: true;
  /**
   * Only in `granted`: somebody else has started the guest here, and the grant was withdrawn. The agent never repeats
   * the grant, whatever becomes of that QEMU.
   */
  readonly withdrawn?: true;
  /**
   * Post-copy has begun: this agent stops the guest itself, so a paused one was running, and a QEMU that lost its stream is
   * to be taken up with this layout. What QEMU does says nothing of the grant any more.
   */
  readonly postcopy?: SourcePostcopy;
  /** Of `released` and `kept`: when it ended. */
  readonly endedAtMs?: number;
  /**
   * Why it failed, for whoever asks after a restart. Always in `kept`; in `released` only where the guest has lost
   * pages in post-copy (*stranded*).
   */
  readonly reason?: { readonly code: string; readonly message: string };
  /** Only in `kept`: the destination has not heard yet that the guest stayed here, and is told until it has. */
  readonly untold?: true;
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
  /** Address of the source agent, from its offer. */
  readonly source: string;
  /** Who made that offer, by what the connection proved. Missing from the version before. */
  readonly caller?: string;
  /** Counts the migrations of this journal, as at the source. */
  readonly sequence: number;
  /** Milliseconds since the epoch, for people only. */
  readonly startedAtMs: number;
  /** Missing until the agent has started a QEMU for the guest. */
  readonly qemu?: QemuProcess;
  readonly grant: OwnershipGrant;
  /** QEMU was given post-copy's package: what is needed to take it up again. */
  readonly postcopy?: DestinationPostcopy;
  /**
   * Only in `arrived`, and in `running` of post-copy: somebody else has started the guest before it was granted. This
   * agent says no `cont` for it, and `ferry may-start` does not allow a new start. A grant that comes later
   * removes the note.
   */
  readonly ungranted?: true;
  /** Of `running`, in post-copy: it was seen to run, so that one that is found paused was paused by its operator. */
  readonly ran?: true;
  /** The source will say when its journal has it that the guest stayed there. */
  readonly saysKept?: true;
  /** Only in `refused`: the reason, for a source that asks late. */
  readonly reason?: string;
  /**
   * Only in `refused`: no copy needs to be kept any more. The source has heard the refusal, or an operator has ended
   * the copy, or there is none.
   */
  readonly heard?: true;
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

/**
 * Tells whether a later migration of the same guest makes an agent pass over this record: it then says nothing to any
 * QEMU for it. A later migration begins only when the earlier one has ended, even if a full disk kept that end from
 * being written. A `granted` record is never passed over, since only its destination can settle it.
 */
export const isPassedOver = (
  { kind, sequence }: Pick<SourceRecord, "kind" | "sequence">,
  others: readonly { readonly sequence: number }[],
): boolean => kind !== "granted" && others.some((other) => other.sequence > sequence);

/**
 * Gives the `sequence` of a new record: one more than the largest in the journal, and never less than the clock in
 * milliseconds, so that the sequences of the two journals of a host can be compared (may-start.ts).
 */
export const nextSequence = (known: readonly { readonly sequence: number }[], nowMs: number): number =>
  Math.max(Math.floor(nowMs), 1 + known.reduce((most, { sequence }) => Math.max(most, sequence), 0));
