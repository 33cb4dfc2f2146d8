/**
 * What the operator sees of a migration: field by field the messages of proto/ferry/v1/operator.proto, which documents
 * each field. It does not follow a migration's internal states (source-states.ts), which may change without a change
 * here.
 */
import type { Refusal } from "../fault.ts";
import type { DeadlineAction, Strategy } from "./messages.ts";

export type MigrationStatus =
  | "preparing"
  | "copying"
  | "switching"
  | "granting"
  | "moved"
  | "failed"
  | "cancelled"
  | "inDoubt"
  | "doubled"
  | "undoing"
  | "serving";

/**
 * Tells whether a status is the end of a migration. `doubled` and `inDoubt` are no end, since the agents go on when
 * they can.
 */
export const isFinal = (status: MigrationStatus): boolean =>
  status === "moved" || status === "failed" || status === "cancelled";

export interface MigrationView {
  readonly id: string;
  readonly guest: string;
  readonly destination: string;
  /** Address of the source agent; set only by a destination agent, for a migration that comes to its host. */
  readonly source?: string;
  readonly status: MigrationStatus;
  readonly startedAtMs: number;
  readonly negotiated: Readonly<Record<string, string>>;
  readonly progress: Progress;
  readonly error?: MigrationErrorView;
  readonly result?: MigrationResult;
}

export interface MigrationErrorView {
  readonly code: string;
  readonly message: string;
  readonly guestNow: string;
  readonly advice: string;
  readonly refusals: readonly Refusal[];
}

/** The figures of a migration under way. They are measured, unless the name says estimated. */
export interface Progress {
  readonly elapsedSeconds: number;
  readonly guestMemoryBytes: number;
  readonly passes: number;
  readonly bytesSent: number;
  readonly bytesPerSecond: number;
  readonly estimatedResidualBytes: number;
  /** 0 while the guest is paused. */
  readonly estimatedDowntimeMs: number;
  readonly pagesPending: number;
  readonly pagesHeld: number;
  /** The fraction of the guest's memory that has come from QEMU at least once, 0 to 1. */
  readonly firstPassFraction: number;
  /** How many pages are in each heat class, the coldest class first. */
  readonly heatClasses: readonly number[];
  readonly dirtyBytesPerSecond: number;
  readonly roundTripMs: number;
  /** How long the link between the agents has been down; 0 while it is up. */
  readonly linkDownSeconds: number;
  /** The downtime that the operator wants the guest to have at most; 0 before it is known. */
  readonly downtimeTargetMs: number;
  /** For how long the estimated downtime has not become less; 0 while it becomes less. */
  readonly stalledSeconds: number;
  /** The estimated time until the guest runs at the destination; missing where no end is in sight. */
  readonly etaSeconds?: number;
}

/**
 * Makes the view of a file of the journal that is no record. The agent cannot tell how the migration of this file
 * stands, or which guest it is about, so the view says that it is in doubt.
 * @param file the path of the file
 */
export const unreadableView = (file: string, { code, message, advice = "" }: UnreadableFault): MigrationView => ({
  ...{ id: file.slice(file.lastIndexOf("/") + 1), guest: "unknown", destination: "", status: "inDoubt" },
  ...{ startedAtMs: 0, negotiated: {}, progress: NO_PROGRESS },
  error: {
    code,
    message,
    guestNow: "nobody knows which guest this record is about, nor where that guest runs",
    advice,
    refusals: [],
  },
});

interface UnreadableFault {
  readonly code: string;
  readonly message: string;
  readonly advice?: string | undefined;
}

/** The figures of a migration that has none: it has not begun, or another agent has them. */
export const NO_PROGRESS: Progress = {
  elapsedSeconds: 0,
  guestMemoryBytes: 0,
  passes: 0,
  bytesSent: 0,
  bytesPerSecond: 0,
  estimatedResidualBytes: 0,
  estimatedDowntimeMs: 0,
  pagesPending: 0,
  pagesHeld: 0,
  firstPassFraction: 0,
  heatClasses: [],
  dirtyBytesPerSecond: 0,
  roundTripMs: 0,
  linkDownSeconds: 0,
  downtimeTargetMs: 0,
  stalledSeconds: 0,
};

/**
 * The time from the source's STOP to the destination's RESUME, in parts that add up to the total. All parts are 0 for a
 * guest that was paused.
 */
export interface Downtime {
  readonly totalMs: number;
  readonly lastPagesMs: number;
  readonly deviceStateMs: number;
  readonly loadMs: number;
  readonly verifyMs: number;
  readonly commitMs: number;
  /** Half the best round trip, which is the error of every figure that compares the two clocks. */
  readonly clockErrorMs: number;
}

/** Encoded bytes on the link, by what they carried. */
export interface BytesByKind {
  readonly total: number;
  readonly zero: number;
  readonly full: number;
  readonly delta: number;
  readonly device: number;
  readonly other: number;
}

/** What became of the captured pages; a page that was captured several times counts each time. */
export interface PageCounts {
  readonly captured: number;
  readonly zero: number;
  readonly full: number;
  readonly delta: number;
  readonly coalesced: number;
  readonly skipped: number;
}

export interface MigrationResult {
  readonly completed: boolean;
  readonly totalSeconds: number;
  readonly downtime: Downtime;
  readonly bytes: BytesByKind;
  readonly pages: PageCounts;
  readonly deltaRatio: number;
  readonly zstdRatio: number;
  readonly bitmapSyncs: number;
  readonly sourceAgentCpuSeconds: number;
  readonly destinationAgentCpuSeconds: number;
  readonly sourceAgentPeakMemoryBytes: number;
  readonly destinationAgentPeakMemoryBytes: number;
  readonly switchReason: string;
  /** For how long the copying did not converge. */
  readonly stalledSeconds: number;
  readonly verified: boolean;
  readonly pagesCompared: number;
  /**
   * Pages that differ because the destination's QEMU itself writes to them, each as a sentence. They are not counted in
   * `pagesCompared`.
   */
  readonly verifyExceptions: readonly string[];
  readonly degradations: readonly string[];
  /** True when the guest was paused and still is, and so had no downtime. */
  readonly paused: boolean;
  /** Set when the migration ended in post-copy. */
  readonly postcopy?: PostcopyResult;
}

/** What post-copy did from RESUME at the destination until the guest had all of its pages. */
export interface PostcopyResult {
  readonly seconds: number;
  readonly requestedPages: number;
  readonly serviceMedianMs: number;
  readonly serviceP99Ms: number;
  readonly serviceMaxMs: number;
  readonly repeatedPages: number;
}

export interface GuestView {
  readonly name: string;
  readonly state: string;
  readonly detail: string;
  readonly qemuVersion: string;
  readonly machineType: string;
  readonly migrationId: string;
  /** The digest of its definition on this host (GuestDefinition.digest); empty where the definition cannot be read. */
  readonly definitionDigest: string;
}

/** What an operator may ask for; every field has its default filled in. */
export interface MigrateOptions {
  readonly strategy: "auto" | Strategy;
  /** 0: the source agent's own setting, migration.downtime. */
  readonly downtimeTargetMs: number;
  /** 0: there is no deadline. */
  readonly deadlineMs: number;
  readonly onDeadline: DeadlineAction;
  /** 0: there is no cap. */
  readonly bandwidthBytesPerSecond: number;
  readonly delta: boolean;
  readonly reorder: boolean;
  readonly compression: "auto" | "off" | number;
  readonly verify: boolean;
  /** True when the operator answers for disks that cannot be proven to be the same on both hosts. */
  readonly sharedDisksUnchecked: boolean;
  /**
   * True if the source is to stay whole until the grant, so that the loss of one host never loses the guest: post-copy
   * is not used then.
   */
  readonly robust: boolean;
}

export interface MigrateCall {
  readonly guest: string;
  readonly to: string;
  readonly options: MigrateOptions;
}

/** An operator's word on a migration that is in doubt or doubled. */
export interface ResolveCall {
  readonly id: string;
  /** The host whose copy of the guest is to live. */
  readonly keep: "source" | "destination";
  /** True when the operator has made sure of what the agent cannot ask (`--yes`). */
  readonly confirmed: boolean;
}

/**
 * The most cells into which a heat map divides each block of the guest's RAM. This is more than any screen is wide. A
 * message with a heat map has one byte for each cell of each block, so this bounds its length.
 */
export const HEAT_CELLS_MAX = 16_384;

export interface HeatMapBlock {
  readonly name: string;
  readonly pagesPerCell: number;
  /**
   * The mean heat of each cell, from 0 (cold) to 255 (hot). A cell is `pagesPerCell` successive pages of the block; the
   * last cell may have fewer.
   */
  readonly cells: Uint8Array;
}
