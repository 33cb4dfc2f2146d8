/** What an agent that starts again does with the migrations that its journal knows (DESIGN 6, 5). */
import { MigrationFault } from "../shared/fault.ts";
import type { LinkLimits } from "../shared/link/link.ts";
import type { ResumingSource } from "../shared/link/resuming-source.ts";
import type { PageKernels } from "../shared/page/kernels.ts";
import type { SourceRecord } from "../shared/protocol/ownership.ts";
import type { MigrateCall } from "../shared/protocol/report.ts";
import { recoverSource, type SourceQemu } from "../shared/protocol/source-states.ts";
import type { Clock } from "../shared/runtime/clock.ts";
import type { SourceConfig } from "../shared/runtime/config.ts";
import type { Deferred } from "../shared/runtime/deferred.ts";
import type { Journal } from "../shared/runtime/journal.ts";
import type { Logger } from "../shared/runtime/log.ts";
import { sweep } from "../shared/runtime/sweep.ts";
import type { TestFaults } from "../shared/runtime/test-faults.ts";
import { openMonitor, qemuOf } from "./monitor.ts";
import { doubtful } from "./phases/grant.ts";
import { type SourceContext, sourceRecord } from "./source-context.ts";
import type { SourceState } from "./source-state.ts";

export interface SourceAgentParts {
  readonly config: SourceConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly journal: Journal<SourceRecord>;
  readonly limits: LinkLimits;
  readonly createKernels: (byteLength: number) => PageKernels;
  readonly faults: TestFaults;
  /** A migration begins, or a guest is looked at. */
  readonly onBusy?: () => void;
}

/** A migration as it is made, new or from the journal. */
export interface Made {
  readonly cx: SourceContext;
  readonly cancel: AbortController;
  /** The destination has dialled in for the first time. */
  readonly arrived: Deferred<void>;
  readonly link: ResumingSource | undefined;
}

/** What is the same for a migration whoever works on it; `startedAtMs` of one from the journal. */
export interface Identity {
  readonly id: string;
  readonly token: Uint8Array;
  readonly startedAtMs?: number;
}

/** Ended migrations that the journal keeps, for `list` and for destinations that ask late. */
const RECORDS_KEPT = 200;

/** Of a migration whose wishes nobody remembers, and nobody needs: it will not copy any more. */
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
};

export interface Found {
  readonly made: Made;
  readonly state: SourceState;
  /** Of one that has ended. */
  readonly endedAtMs: number;
}

/** @returns ended ones too, for whoever asks; @throws MigrationFault `state-directory` for a file that is no record: nothing is guessed from it, and nothing starts beside it */
export async function recoverMigrations(
  { config, journal, log }: SourceAgentParts,
  make: (call: MigrateCall, identity: Identity) => Made,
): Promise<Found[]> {
  await sweep(config.runtimeDirectory, ["stream", "verify", "rehearsal", "rehearsal-peer", "rehearsal-monitor"]);
  const { entries, faults } = await journal.list();
  for (const fault of faults)
    log.error(
      { fault: fault.message, advice: fault.advice },
      "a file in stateDirectory is no record; what it belongs to is not known",
    );
  const found: Found[] = [];
  const newest = new Map<string, number>();
  for (const { record } of entries)
    newest.set(record.guest, Math.max(record.startedAtMs, newest.get(record.guest) ?? 0));
  for (const { id, record } of entries) {
    const { guest, destination, startedAtMs, grant } = record;
    const identity = { id, token: Buffer.from(grant.token, "hex"), startedAtMs };
    const made = make({ guest, to: destination, options: OPTIONS }, identity);
    const state =
      startedAtMs < (newest.get(guest) ?? 0) ? await passOver(record, made.cx) : await takeUp(record, made.cx);
    if (state.kind !== "released" && state.kind !== "kept")
      made.cx.log.warn({ record: record.kind, state: state.kind }, "taking up a migration from the journal");
    found.push({ made, state, endedAtMs: record.endedAtMs ?? startedAtMs });
  }
  await journal.prune(isOver, RECORDS_KEPT);
  return found.sort((one, other) => one.made.cx.report.startedAtMs - other.made.cx.report.startedAtMs);
}

const isOver = ({ kind }: SourceRecord): boolean => kind === "released" || kind === "kept";

/**
 * A later migration of the guest began, so this one had ended, whatever a full disk kept from being written. Its QEMU is that
 * one's now: to make it run here could start a guest that was granted since.
 */
async function passOver(record: SourceRecord, cx: SourceContext): Promise<SourceState> {
  if (record.kind === "released") return { kind: "released" };
  if (!isOver(record))
    await cx.journal
      .write(cx.id, sourceRecord(cx, "kept"))
      .catch((thrown: unknown) => cx.log.warn({ fault: MigrationFault.from(thrown).message }, "journal"));
  return { kind: "kept", fault: endOf(record.reason) };
}

async function takeUp(
  { kind, settings, postcopy, reason, grant }: SourceRecord,
  cx: SourceContext,
): Promise<SourceState> {
  const saved = {
    paused: grant.paused,
    ...(settings === undefined ? {} : { settings }),
    ...(postcopy === undefined ? {} : { postcopy }),
  };
  // of a plan, whatever QEMU does, the guest stays here
  const state = recoverSource(kind, kind === "granted" ? await ask(cx, postcopy !== undefined) : "active");
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
        undo: { touched: true, accepted: true, ...saved },
      };
    case "inDoubt":
      return { kind: state, fault: doubtful(cx, "the source agent ended before it heard what became of it"), ...saved };
    case "released":
      return { kind: state };
    case "kept":
      return { kind: state, fault: endOf(reason) };
  }
}

/** Codes are stable, so an older life's are this one's; one that is not is told in the message. */
function endOf(reason: SourceRecord["reason"]): MigrationFault {
  if (reason?.code === "cancelled") return new MigrationFault("cancelled", reason.message);
  const why = reason === undefined ? "why is in the log of that time" : `${reason.message} (${reason.code})`;
  return new MigrationFault("interrupted", `Ended before this agent started: ${why}`);
}

/** A QEMU that cannot be asked may have completed: then only the destination can tell. */
async function ask(cx: SourceContext, postcopy: boolean): Promise<SourceQemu> {
  try {
    const qmp = await openMonitor(cx);
    try {
      return await qemuOf(qmp, postcopy);
    } finally {
      qmp?.close();
    }
  } catch (thrown) {
    cx.log.warn({ fault: MigrationFault.from(thrown).message }, "the source QEMU cannot be asked");
    return "retired";
  }
}
