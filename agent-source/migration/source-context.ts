/**
 * What one migration has at hand in every state, its journal records, and the words for where its guest is. What
 * changes with the state is not here (source-state.ts).
 */
import { defined } from "../../shared/defined.ts";
import type { MigrationFault } from "../../shared/fault.ts";
import type { LinkLimits } from "../../shared/link/link.ts";
import type { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { EPOCH, type SourceRecord } from "../../shared/protocol/ownership.ts";
import type { MigrateCall } from "../../shared/protocol/report.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { SourceConfig } from "../../shared/runtime/config/config.ts";
import type { Journal } from "../../shared/runtime/journal/journal.ts";
import type { Logger } from "../../shared/runtime/log/log.ts";
import type { TestFaults } from "../../shared/runtime/test-faults.ts";
import type { Kept } from "../guest/kept.ts";
import type { OwnQemu } from "../guest/own-qemu.ts";
import type { RestartedStreams } from "../link/restarted-streams.ts";
import type { MigrationReport } from "../report/migration-report.ts";
import type { KeptMemory } from "../send/kept-memory.ts";
import type { OperatorWords } from "./operator-words.ts";

export interface SourceContext {
  readonly id: string;
  readonly call: MigrateCall;
  /** What a plan before has to do with the strategy, for the operator; empty where there was no plan. */
  readonly chosenBecause: string;
  /** The one-time secret of this migration: the destination shows it when it dials in, and the grant carries it. */
  readonly token: Uint8Array;
  readonly config: SourceConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly journal: Journal<SourceRecord>;
  readonly report: MigrationReport;
  readonly limits: LinkLimits;
  /** The address at which the destination dials this agent. */
  readonly advertised: string;
  /** Aborted with the fault when the operator cancels or the agent stops; without effect once the grant is recorded. */
  readonly cancelled: AbortSignal;
  /** Aborted when the agent ends and leaves its migrations as they are: the next agent goes on from the journal. */
  readonly leaving: AbortSignal;
  /** Hands the operator's words to the state that asks for one. */
  readonly words: OperatorWords;
  /** The guest's QEMU on this host: the one process that this migration is about. */
  readonly qemu: OwnQemu;
  /** What must not be forgotten while the guest is granted, from this life of the agent or an earlier one. */
  readonly doubt: DoubtNotes;
  /** The `sequence` of this migration's journal records: a later migration of this agent has a larger one. */
  readonly sequence: number;
  /** Processor time of this process when the migration began, seconds. The result tells how much was added since. */
  readonly cpuSecondsBefore: number;
  readonly createKernels: (byteLength: number) => PageKernels;
  /** Keeps the memory of migrations that have ended. @default none is kept */
  readonly keptMemory?: KeptMemory;
  /** Resolves when the destination has dialled in with this migration's token. */
  readonly dialledIn: () => Promise<ResumingSource>;
  /** The streams that the destination begins again in post-copy. */
  readonly restartedStreams: RestartedStreams;
  readonly faults: TestFaults;
}

/** What an agent notes about a guest that was granted. */
interface DoubtNotes {
  /**
   * True once the guest was seen to run here after it was granted. The grant was withdrawn then, and is never repeated.
   */
  isWithdrawn: boolean;
}

/** Gives the token of a migration as its records have it, hexadecimal. */
export const tokenText = ({ token }: Pick<SourceContext, "token">): string => Buffer.from(token).toString("hex");

/** Makes the record that the journal holds of a migration at one of its turning points. */
export function sourceRecord(
  cx: SourceContext,
  kind: SourceRecord["kind"],
  { settings, postcopy, paused, retiring }: Kept = { paused: false },
): SourceRecord {
  const { process } = cx.qemu;
  const record = {
    kind,
    guest: cx.call.guest,
    destination: cx.call.to,
    sequence: cx.sequence,
    startedAtMs: cx.report.startedAtMs,
    grant: { token: tokenText(cx), epoch: EPOCH, paused },
    ...defined({ qemu: process }),
  };
  if (kind === "released" || kind === "kept") {
    // the agent that ends the QEMU must know that it was left in post-copy
    const left = kind === "kept" || postcopy === undefined ? {} : { postcopy };
    return { ...record, ...left, endedAtMs: Math.floor(cx.clock.nowUs() / 1000) };
  }
  return {
    ...record,
    ...defined({ settings, postcopy }),
    ...(retiring === true ? { retiring } : {}),
    ...(kind === "granted" && cx.doubt.isWithdrawn ? { withdrawn: true } : {}),
  };
}

/**
 * Makes the record of a guest that stays at the source.
 * @param untold true while the destination has not heard yet that the guest stays here
 */
export const keptRecord = (cx: SourceContext, { code, message }: MigrationFault, untold: boolean): SourceRecord => ({
  ...sourceRecord(cx, "kept"),
  reason: { code, message },
  ...(untold ? { untold: true } : {}),
});

// The words below say in a fault where the guest is and what it does (`guestNow`).

export const GUEST_RUNS_HERE = "the guest runs at the source";
export const GUEST_PAUSED_HERE = "the guest is at the source, paused as it was";
export const GUEST_RUNS_TWICE = "the guest runs at both hosts: two running copies ruin its disks";
/**
 * The words for a paused guest whose QEMU has completed its migration. Apart from a reset, only `cont` brings QEMU out
 * of `postmigrate`, and would run the guest (qmp_cont and runstate_transitions_def in QEMU;
 * docs/design/switchover.md#a-paused-guest).
 */
export const GUEST_PAUSED_POSTMIGRATE =
  "the guest is at the source, paused as it was; its QEMU calls that postmigrate, and cont starts it";
/**
 * The words for a guest whose QEMU has completed a migration that was not this agent's: somebody else has migrated the
 * guest, which may run at another host.
 */
export const GUEST_MIGRATED_BY_OTHERS =
  "the guest's QEMU at the source is postmigrate, which this agent did not bring about: somebody else has migrated the guest; nothing starts it here";
export const GUEST_UNKNOWN_HERE =
  "the guest is as it was: an older agent wrote the record of this migration, and nothing was said to any QEMU for it";
/** Says where a guest is that has lost pages in post-copy. */
export const strandedAt = (destination: string): string =>
  `the guest is at ${destination} and misses pages: it stops when it needs one of them`;
export const GUEST_IN_DOUBT =
  "the guest is paused at the source and may run at the destination; nothing starts it here until it is resolved";
