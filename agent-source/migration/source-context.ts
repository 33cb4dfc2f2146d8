/** What one migration has at hand in every state. Nothing here changes with the state; that lives in the states. */
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
import type { OperatorWords } from "./operator-words.ts";

export interface SourceContext {
  readonly id: string;
  readonly call: MigrateCall;
  /** Why the agents chose the strategy, where a plan did; else empty. */
  readonly chosenBecause: string;
  /** One-time secret of this migration: the destination shows it when it dials in, and the grant carries it. */
  readonly token: Uint8Array;
  readonly config: SourceConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly journal: Journal<SourceRecord>;
  readonly report: MigrationReport;
  readonly limits: LinkLimits;
  /** Where the destination dials this agent. */
  readonly advertised: string;
  /** Aborted with the fault when the operator cancels or the agent stops; without effect once the grant is recorded. */
  readonly cancelled: AbortSignal;
  /** Aborted when the agent leaves whatever its migrations are doing: the next one takes them up from the journal. */
  readonly leaving: AbortSignal;
  /** Hands the operator's words to the state that asks for one. */
  readonly words: OperatorWords;
  /** The guest's QEMU on this host: the one process that this migration is of. */
  readonly qemu: OwnQemu;
  /** What must not be forgotten while the guest is granted, from this life of the agent or an earlier one. */
  readonly doubt: DoubtNotes;
  /** The `sequence` of its records in the journal. */
  readonly sequence: number;
  /** Of this process when the migration began, to tell what it cost. */
  readonly cpuSecondsBefore: number;
  readonly createKernels: (byteLength: number) => PageKernels;
  /** Resolves when the destination dialled in with this migration's token. */
  readonly dialledIn: () => Promise<ResumingSource>;
  /** Streams that the destination begins anew in post-copy. */
  readonly restartedStreams: RestartedStreams;
  readonly faults: TestFaults;
}

export interface DoubtNotes {
  /**
   * True when the guest was seen to run here after it was granted, and the grant was withdrawn: it is never repeated.
   */
  isWithdrawn: boolean;
}

/** What the journal holds of a migration, at one of its turning points. */
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
    grant: { token: Buffer.from(cx.token).toString("hex"), epoch: EPOCH, paused },
    ...(process === undefined ? {} : { qemu: process }),
  };
  if (kind === "released" || kind === "kept") {
    // how its QEMU is left behind, for the agent that ends it
    const left = kind === "kept" || postcopy === undefined ? {} : { postcopy };
    return { ...record, ...left, endedAtMs: Math.floor(cx.clock.nowUs() / 1000) };
  }
  return {
    ...record,
    ...(settings === undefined ? {} : { settings }),
    ...(postcopy === undefined ? {} : { postcopy }),
    ...(retiring === true ? { retiring } : {}),
    ...(kind === "granted" && cx.doubt.isWithdrawn ? { withdrawn: true } : {}),
  };
}

/** The record of a guest that stays at the source. @param untold the destination has not heard yet that it stays */
export const keptRecord = (cx: SourceContext, { code, message }: MigrationFault, untold: boolean): SourceRecord => ({
  ...sourceRecord(cx, "kept"),
  reason: { code, message },
  ...(untold ? { untold: true } : {}),
});

/** What the guest does at this point, for errors. */
export const GUEST_RUNS_HERE = "the guest runs at the source";
export const GUEST_PAUSED_HERE = "the guest is at the source, paused as it was";
/** Where the guest runs at both hosts. */
export const GUEST_RUNS_TWICE = "the guest runs at both hosts: two running copies ruin its disks";
/** QEMU can be brought out of this state by `cont` only, which would run the guest (qmp_cont; runstate_transitions_def). */
export const GUEST_PAUSED_POSTMIGRATE =
  "the guest is at the source, paused as it was; its QEMU calls that postmigrate, and cont starts it";
/** For a QEMU that this agent did not retire: somebody else has migrated the guest, and it may run at another host. */
export const GUEST_MIGRATED_BY_OTHERS =
  "the guest's QEMU at the source is postmigrate, which this agent did not bring about: somebody else has migrated the guest; nothing starts it here";
export const GUEST_UNKNOWN_HERE =
  "the guest is as it was: an older agent wrote the record of this migration, and nothing was said to any QEMU for it";
/** Where a guest is that has lost pages in post-copy. */
export const strandedAt = (destination: string): string =>
  `the guest is at ${destination} and misses pages: it stops when it needs one of them`;
export const GUEST_IN_DOUBT =
  "the guest is paused at the source and may run at the destination; nothing starts it here until it is resolved";
