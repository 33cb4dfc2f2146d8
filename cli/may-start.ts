/**
 * Judges whether a guest may be started on this host, from the journals of the host's agents. No agent is asked. Where
 * a journal or a process cannot be read, nothing is guessed, and the guest may not be started.
 */
import { MigrationFault } from "../shared/fault.ts";
import { type LatestRecord, latestRecordOf, mayStart, processOf, type Verdict } from "../shared/protocol/may-start.ts";
import { decodeDestinationRecord, decodeSourceRecord } from "../shared/protocol/record-decoding.ts";
import { hasEnded } from "../shared/runtime/host/process-identity.ts";
import { Journal, type JournalContents } from "../shared/runtime/journal/journal.ts";

/** The directories of both journals (`stateDirectory`); undefined for an agent that this host does not have. */
export interface StateDirectories {
  readonly source: string | undefined;
  readonly destination: string | undefined;
}

export interface Judgement extends Verdict {
  readonly guest: string;
  /** False where a journal, a record or a process could not be read; `may` is false then. */
  readonly known: boolean;
  /**
   * Id of the migration whose record decides: the latest one of this guest in either journal. Missing where no journal
   * has a record of the guest, and where `known` is false.
   */
  readonly migration?: string;
  /** What to do where `known` is false. */
  readonly advice?: string;
}

/** Judges whether a guest may be started. Never rejects. */
export async function judge(guest: string, directories: StateDirectories): Promise<Judgement> {
  try {
    return await judgeOrThrow(guest, directories);
  } catch (thrown) {
    const { message, advice } = MigrationFault.from(thrown);
    const unknown = { guest, may: false, passing: false, known: false, because: message };
    return advice === undefined ? unknown : { ...unknown, advice };
  }
}

async function judgeOrThrow(guest: string, directories: StateDirectories): Promise<Judgement> {
  let latest = await readLatestRecord(guest, directories);
  while (true) {
    const lives = latest !== undefined && (await isAlive(latest));
    const verdict = mayStart(latest, lives);
    // the guest may have left this host while its process was looked for, and then has a later record. So the journals
    // are read again: once the process has ended, the guest cannot leave any more
    const again = verdict.may ? await readLatestRecord(guest, directories) : latest;
    if (isSame(latest, again)) return { guest, ...verdict, known: true, ...(latest && { migration: latest.id }) };
    latest = again;
  }
}

async function isAlive(latest: LatestRecord): Promise<boolean> {
  const process = processOf(latest);
  return process !== undefined && !(await hasEnded(process));
}

const isSame = (latest: LatestRecord | undefined, other: LatestRecord | undefined): boolean =>
  latest?.id === other?.id && latest?.side === other?.side && latest?.record.kind === other?.record.kind;

async function readLatestRecord(
  guest: string,
  { source, destination }: StateDirectories,
): Promise<LatestRecord | undefined> {
  const left = await readAll(source, decodeSourceRecord, "--source-state");
  const came = await readAll(destination, decodeDestinationRecord, "--destination-state");
  return latestRecordOf(guest, left.entries, came.entries);
}

/**
 * Reads a journal.
 * @throws MigrationFault `state-directory` when the journal cannot be read, or has a file that is no record: that file
 *   may be about any guest
 */
async function readAll<T>(
  directory: string | undefined,
  decode: (value: unknown) => T | undefined,
  option: string,
): Promise<JournalContents<T>> {
  if (directory === undefined) return { entries: [], faults: [] };
  const contents = await Journal.contents(directory, decode).catch((thrown: unknown) => {
    const { message } = MigrationFault.from(thrown);
    throw new MigrationFault("state-directory", message, {
      cause: thrown,
      advice: `Ask as the agents' user, or name that agent's stateDirectory with ${option}; on a host without that agent, give ${option} none`,
    });
  });
  const [torn] = contents.faults;
  if (torn !== undefined) throw torn;
  return contents;
}
