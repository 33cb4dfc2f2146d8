/** Writes a record into the journal in bounded time: a disk that hangs must not keep a guest stopped. */
import type { Journal } from "./journal.ts";

/**
 * How long the write of a record may take, milliseconds. A record that is not written by then counts as not written
 * (docs/design/ownership.md, rule 17).
 */
const WITHIN_MS = 5000;

/**
 * Writes the record of a migration.
 * @throws MigrationFault `state-directory` when the disk does not take it within 5 s; the record may still be written
 *   later
 */
export const writeInTime = <T>(
  { journal, id }: { readonly journal: Pick<Journal<T>, "write">; readonly id: string },
  record: T,
): Promise<void> => journal.write(id, record, { withinMs: WITHIN_MS });
