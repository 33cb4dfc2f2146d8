/**
 * Writes the end of a migration into the journal, at once or later. The migration has ended whether or not the disk
 * takes the record: nothing waits for a full disk, and the record is written as soon as there is room. Without the
 * record, an agent that starts again would ask another host about a migration that is long over, and would be told of a
 * guest that has moved on since.
 */
import { MigrationFault } from "../../fault.ts";
import { type Clock, sleepUnref, systemClock } from "../clock.ts";
import { orAborted } from "../deferred.ts";
import type { Logger } from "../log/log.ts";
import type { Journal } from "./journal.ts";
import { writeInTime } from "./write-in-time.ts";

/** The first and the longest pause before another try, milliseconds. The pause doubles after each try. */
const AGAIN_MIN_MS = 1000;
const AGAIN_MAX_MS = 30_000;

interface AtLast {
  readonly log: Logger;
  /** Aborted when the agent stops, which ends the tries. */
  readonly leaving: AbortSignal;
  /** What follows if the record is never written, for the log. */
  readonly otherwise: string;
  /** @default systemClock */
  readonly clock?: Clock;
}

/** For each journal and migration, the record that is still to be written. A later record replaces an earlier one. */
const wanted = new WeakMap<object, Map<string, unknown>>();

/** Writes the record, and tries again later where the disk does not take it. Resolves after the first try. */
export async function writeAtLast<T>(journal: Journal<T>, id: string, record: T, parts: AtLast): Promise<void> {
  const mine = wanted.get(journal) ?? new Map<string, unknown>();
  wanted.set(journal, mine);
  mine.set(id, record);
  const before = journal.latest(id);
  try {
    await writeInTime({ journal, id }, record);
    if (mine.get(id) === record) mine.delete(id);
  } catch (thrown) {
    parts.log.warn({ fault: MigrationFault.from(thrown).message }, parts.otherwise);
    // the record is no longer wanted once the journal has taken a record of the migration since, be it this one or
    // another, or once a later record was given to writeAtLast()
    const isWanted = (): boolean => mine.get(id) === record && journal.latest(id) === before;
    void writeLater(journal, id, record, parts, isWanted).finally(() => {
      if (mine.get(id) === record) mine.delete(id);
    });
  }
}

/** Tries until the record is written or no longer wanted, or the agent leaves. Never rejects. */
async function writeLater<T>(
  journal: Journal<T>,
  id: string,
  record: T,
  { log, leaving, clock = systemClock }: AtLast,
  isWanted: () => boolean,
): Promise<void> {
  for (let pauseMs = AGAIN_MIN_MS; ; pauseMs = Math.min(AGAIN_MAX_MS, 2 * pauseMs)) {
    await orAborted(sleepUnref(clock, pauseMs), leaving).catch(() => undefined);
    if (leaving.aborted || !isWanted()) return;
    const written = await journal.write(id, record).then(
      () => true,
      () => false,
    );
    if (written) return log.info("the journal has taken the end of the migration");
  }
}
