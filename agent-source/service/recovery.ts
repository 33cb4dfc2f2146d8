/**
 * Takes up the migrations that the journal knows when a source agent starts again. recoverSource()
 * (shared/protocol/source-states.ts) says in which state each of them goes on; this file makes what that state needs.
 */
import { defined } from "../../shared/defined.ts";
import { MigrationFault } from "../../shared/fault.ts";
import type { LinkLimits } from "../../shared/link/link.ts";
import type { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import { isPassedOver, type QemuProcess, type SourceRecord } from "../../shared/protocol/ownership.ts";
import type { MigrateCall } from "../../shared/protocol/report.ts";
import { recoverSource } from "../../shared/protocol/source-states.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { SourceConfig } from "../../shared/runtime/config/config.ts";
import type { Deferred } from "../../shared/runtime/deferred.ts";
import { REHEARSAL_SOCKETS } from "../../shared/runtime/files/runtime-sockets.ts";
import { sweep } from "../../shared/runtime/files/sweep.ts";
import { meetingPlaces } from "../../shared/runtime/guest/meeting-place.ts";
import type { Journal } from "../../shared/runtime/journal/journal.ts";
import { logUnreadable, orLogged } from "../../shared/runtime/journal/journal-log.ts";
import type { Logger } from "../../shared/runtime/log/log.ts";
import type { TestFaults } from "../../shared/runtime/test-faults.ts";
import { doubtful } from "../migration/phases/grant.ts";
import { keptRecord, type SourceContext, strandedAt } from "../migration/source-context.ts";
import { isEnd, type SourceState, type State } from "../migration/source-state.ts";
import type { KeptMemory } from "../send/kept-memory.ts";

export interface SourceAgentParts {
  readonly config: SourceConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly journal: Journal<SourceRecord>;
  readonly limits: LinkLimits;
  readonly createKernels: (byteLength: number) => PageKernels;
  /** Keeps the memory of migrations that have ended. @default none is kept */
  readonly keptMemory?: KeptMemory | undefined;
  readonly faults: TestFaults;
  /** Called when a migration or a plan begins. */
  readonly onBusy?: () => void;
}

/** What is made for a migration, a new one or one from the journal. */
export interface Made {
  readonly cx: SourceContext;
  readonly cancel: AbortController;
  /** Resolves when the destination has dialled in for the first time. */
  readonly arrived: Deferred<void>;
  /** The first transfer stream; undefined for a migration from the journal. */
  readonly link: ResumingSource | undefined;
}

/** What stays the same for a migration in all lives of the agent. */
export interface Identity {
  readonly id: string;
  readonly token: Uint8Array;
  readonly sequence: number;
  /** When the migration began, milliseconds since the epoch; set only for a migration from the journal. */
  readonly startedAtMs?: number;
  /** True when the grant was withdrawn, since the guest was seen to run here. */
  readonly isWithdrawn?: boolean;
  /** The guest's QEMU; set for a migration from the journal whose record names one. */
  readonly qemu?: QemuProcess;
}

/** How many ended migrations the journal keeps, for `list` and for destinations that ask late. */
const RECORDS_KEPT = 200;

/**
 * The options that a migration from the journal is given, since the journal does not keep the options of a migration.
 * Such a migration copies nothing any more.
 */
const OPTIONS: MigrateCall["options"] = {
  strategy: "auto",
  downtimeTargetMs: 0,
  deadlineMs: 0,
  onDeadline: "cancel",
  bandwidthBytesPerSecond: 0,
  delta: true,
  reorder: true,
  compression: "auto",
  verify: false,
  sharedDisksUnchecked: false,
  robust: false,
};

export interface Found {
  readonly made: Made;
  readonly state: SourceState;
  /** When the migration ended, milliseconds since the epoch; when it began, where its journal record names no end. */
  readonly endedAtMs: number;
}

/**
 * Reads the journal, and removes the sockets and temporary files that an earlier life of the agent left. A file of the
 * journal that is no record is logged; nothing is guessed from it.
 * @param make makes a migration for a record
 * @returns all migrations of the journal, the oldest first; also those that have ended, since operators ask for them
 * @throws MigrationFault `state-directory` when the journal cannot be read
 */
export async function recoverMigrations(
  { config, journal, log }: SourceAgentParts,
  make: (call: MigrateCall, identity: Identity) => Made,
): Promise<Found[]> {
  for (const directory of await meetingPlaces(config.runtimeDirectory))
    await sweep(directory, ["stream", "verify", ...REHEARSAL_SOCKETS.source]);
  const { entries, faults } = await journal.list();
  logUnreadable(faults, log);
  const found: Found[] = [];
  for (const { id, record } of entries) {
    const { guest, destination, sequence, startedAtMs, grant, qemu } = record;
    const token = Buffer.from(grant.token, "hex");
    const isWithdrawn = record.withdrawn === true;
    const identity = { id, token, sequence, startedAtMs, isWithdrawn, ...defined({ qemu }) };
    const made = make({ guest, to: destination, options: OPTIONS }, identity);
    const others = entries.filter((one) => one.id !== id && one.record.guest === guest).map((one) => one.record);
    const state = isPassedOver(record, others) ? await passOver(record, made.cx) : await resumeFrom(record, made.cx);
    if (!isEnd(state))
      made.cx.log.warn({ record: record.kind, state: state.kind }, "taking up a migration from the journal");
    found.push({ made, state, endedAtMs: record.endedAtMs ?? startedAtMs });
  }
  await pruneJournal(journal);
  return found.sort((one, other) => one.made.cx.report.startedAtMs - other.made.cx.report.startedAtMs);
}

/**
 * Removes journal records of ended migrations, the oldest first, until RECORDS_KEPT of them are left.
 * @param slack nothing is removed, and the disk is not looked at, while there are at most RECORDS_KEPT + `slack` of
 *   these records
 */
export const pruneJournal = (journal: Journal<SourceRecord>, slack = 0): Promise<void> =>
  journal.prune(isSettled, RECORDS_KEPT, slack);

const isSettled = ({ kind, untold }: SourceRecord): boolean =>
  (kind === "released" || kind === "kept") && untold !== true;

/**
 * Gives the state of a migration from the journal that a later migration of the same guest has followed. The earlier
 * migration had ended by then, even if a full disk kept its end from being written: where the record is still `plan`,
 * `kept` is written now. The record is never `granted`, since such a record is never passed over. The QEMU belongs to
 * the later migration now. The guest is not made to run here, since the later migration may have granted it.
 */
async function passOver(record: SourceRecord, cx: SourceContext): Promise<SourceState> {
  if (record.kind === "released") return released(record, cx);
  const fault = endOf(record.reason);
  const untold = record.kind === "kept" ? record.untold === true : record.retiring === true;
  if (record.kind === "kept") return { kind: untold ? "withdrawing" : "kept", fault };
  await orLogged(cx.journal.write(cx.id, keptRecord(cx, fault, untold)), cx.log);
  return { kind: untold ? "withdrawing" : "kept", fault };
}

/**
 * True when a process still lives that a released migration should have ended. False also where that cannot be told:
 * the next start of the agent then looks again.
 */
const isLeftBehind = async ({ qemu }: SourceContext): Promise<boolean> =>
  qemu.process !== undefined && !(await qemu.hasEnded().catch(() => true));

async function resumeFrom(record: SourceRecord, cx: SourceContext): Promise<SourceState> {
  const { kind, settings, postcopy, reason, grant, retiring, untold } = record;
  const saved = {
    paused: grant.paused,
    ...defined({ settings, postcopy }),
  };
  const state = recoverSource(
    kind,
    kind === "released" && (await isLeftBehind(cx)) ? "retired" : "gone",
    untold === true,
  );
  switch (state) {
    case "keeping":
      return {
        kind: state,
        fault: new MigrationFault(
          "interrupted",
          "The source agent ended while it migrated this guest, and started again",
          {
            advice: "Migrate again",
          },
        ),
        undo: {
          touched: true,
          accepted: true,
          // `retiring` counts in post-copy too: a QEMU that had no page left to send has sent the whole guest, as in
          // precopy
          mayBeWhole: retiring === true,
          isRetired: retiring === true,
          granted: "no",
          ...saved,
        },
      };
    case "inDoubt":
      return {
        kind: state,
        fault: doubtful(cx, "the source agent ended before it heard what became of the grant"),
        ...saved,
      };
    case "releasing":
      return { kind: state, ...saved };
    case "withdrawing":
      return { kind: state, fault: endOf(reason) };
    case "released":
      return released(record, cx);
    case "kept":
      return { kind: state, fault: endOf(reason) };
  }
}

/** The end of a migration that left nothing of the guest here: a move, or the loss of pages in post-copy. */
function released({ reason }: SourceRecord, { call }: SourceContext): State<"released"> | State<"stranded"> {
  if (reason === undefined) return { kind: "released" };
  const fault = new MigrationFault("pages-lost", `The migration ended before this agent started: ${reason.message}`, {
    guestNow: strandedAt(call.to),
    advice: `See how it stands there with: ferry --agent ${call.to} list`,
  });
  return { kind: "stranded", fault };
}

/**
 * Makes the fault of a migration that ended in an earlier life of the agent. Only the code `cancelled` is kept; any
 * other code is named in the message of `interrupted`.
 */
function endOf(reason: SourceRecord["reason"]): MigrationFault {
  if (reason?.code === "cancelled") return new MigrationFault("cancelled", reason.message);
  const why =
    reason === undefined ? "the reason is in the agent's log of that time" : `${reason.message} (${reason.code})`;
  return new MigrationFault("interrupted", `The migration ended before this agent started: ${why}`);
}
