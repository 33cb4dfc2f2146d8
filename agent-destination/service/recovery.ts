/**
 * The first part of what an agent does when it starts again: it reads its journal, and removes the files of QEMUs that
 * have ended. Where a migration of the journal goes on is decided by recoverDestination()
 * (shared/protocol/destination-states.ts; docs/design/ownership.md).
 */
import type { LinkLimits } from "../../shared/link/link.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { DestinationRecord } from "../../shared/protocol/ownership.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { DestinationConfig } from "../../shared/runtime/config/config.ts";
import { removeLeft } from "../../shared/runtime/files/remove-left.ts";
import { REHEARSAL_SOCKETS } from "../../shared/runtime/files/runtime-sockets.ts";
import { sweep } from "../../shared/runtime/files/sweep.ts";
import { meetingPlaces } from "../../shared/runtime/guest/meeting-place.ts";
import { hasEnded } from "../../shared/runtime/host/process-identity.ts";
import type { Journal, JournalEntry } from "../../shared/runtime/journal/journal.ts";
import { logUnreadable } from "../../shared/runtime/journal/journal-log.ts";
import type { Logger } from "../../shared/runtime/log/log.ts";
import type { TestFaults } from "../../shared/runtime/test-faults.ts";
import { clearFiles } from "../migration/clear-files.ts";
import { keeperPlaces } from "../migration/destination-context.ts";

/** What the program gives to the destination agent. */
export interface DestinationAgentParts {
  readonly config: DestinationConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly journal: Journal<DestinationRecord>;
  readonly limits: LinkLimits;
  readonly createKernels: (byteLength: number) => PageKernels;
  readonly faults: TestFaults;
  /** Called when a migration begins: for an offer, a check, or a record of the journal. */
  readonly onBusy?: () => void;
}

/**
 * How many records of ended migrations are kept for sources that ask late. A source whose record is gone is answered
 * `unknown`.
 */
const RECORDS_KEPT = 200;

/**
 * Reads the journal, removes the files that earlier lives of this agent have left of QEMUs that have ended, and then
 * removes the oldest records of ended migrations (pruneJournal). A file that is no record is logged and left alone,
 * because nothing may be guessed from it.
 * @returns every record that was read, the one with the smallest `sequence` first
 */
export async function readJournal(parts: DestinationAgentParts): Promise<readonly JournalEntry<DestinationRecord>[]> {
  const { journal, log, config } = parts;
  for (const directory of await meetingPlaces(config.runtimeDirectory))
    await sweep(directory, ["incoming", "verify-destination", ...REHEARSAL_SOCKETS.destination]);
  const { entries, faults } = await journal.list();
  logUnreadable(faults, log);
  for (const { id, record } of entries) {
    if (!(await hasLeftFiles(record))) continue;
    await clearFiles(record.guest, config);
    // the paths of the keeper belong to this migration alone, so they are removed even if another QEMU has the guest's
    // own socket now
    for (const left of Object.values(keeperPlaces({ id, guest: record.guest, config }))) await removeLeft(left);
  }
  await pruneJournal(journal);
  return [...entries].sort((one, other) => one.record.sequence - other.record.sequence);
}

/**
 * Removes the oldest records of ended migrations, until RECORDS_KEPT are left of each kind. The kinds are counted
 * apart, so a peer that is refused again and again takes away only records of refusals, and none of a guest that has
 * arrived.
 * @param slack how many more records of a kind there may be before anything is removed
 */
export async function pruneJournal(journal: Journal<DestinationRecord>, slack = 0): Promise<void> {
  for (const kind of ["arrived", "refused"])
    await journal.prune((record) => record.kind === kind && isSettled(record), RECORDS_KEPT, slack);
}

/** True when nothing is left to do for the migration of a record. */
export const isSettled = ({ kind, heard }: DestinationRecord): boolean =>
  kind === "arrived" || (kind === "refused" && heard === true);

/**
 * True when the migration's QEMU has ended, or none is known, so that files may have been left; never for a guest that
 * has arrived. A QEMU that is still loading ends when its stream ends, and so it ends with the agent.
 */
const hasLeftFiles = async ({ kind, qemu }: DestinationRecord): Promise<boolean> =>
  kind !== "arrived" && (qemu === undefined || (await hasEnded(qemu).catch(() => false)));
