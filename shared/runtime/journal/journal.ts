/**
 * Keeps what an agent must still know after a crash, as one file for each migration in `stateDirectory`
 * (docs/operations.md, "Journals").
 *
 *     ID.json   {"format":1,"id":ID,"record":{…},"checksum":SHA-256 of [format, id, record]}
 *
 * A file is replaced as a whole (temporary file, fsync, rename, fsync of the directory), so a reader sees either the
 * old record or the new one. The checksum tells a record from a torn or foreign file, and nothing acts upon what such a
 * file says. Not the journal's job: what the records mean (shared/protocol/ownership.ts), and keeping a second agent
 * off the directory (agent-lock.ts).
 */
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { MigrationFault } from "../../fault.ts";
import { type Clock, systemClock } from "../clock.ts";
import { within } from "../deferred.ts";
import { readSmallFile } from "../files/small-file.ts";
import { type JournalDisk, THIS_DISK } from "./journal-disk.ts";
import { decodeFile, encode } from "./journal-file.ts";

const NAME = /^[A-Za-z0-9._-]{1,100}$/;
const SUFFIX = ".json";
/** The longest file that is read, bytes. A record is a few hundred bytes. */
const FILE_BYTES_MAX = 1 << 20;
/** The end of the name of a record's temporary file. */
const TEMPORARY = ".new";
/**
 * At the end of a migration, an agent prunes its journal only if the journal has more than this many records beyond
 * those that are kept.
 */
export const RECORDS_SLACK = 50;

export interface JournalEntry<T> {
  readonly id: string;
  readonly record: T;
}

/** A file that is no record, and why. */
export type Unreadable = readonly [file: string, fault: MigrationFault];

export interface JournalContents<T> {
  readonly entries: readonly JournalEntry<T>[];
  /** One fault for each file that is no record; the fault names the file. All other files are in `entries`. */
  readonly faults: readonly MigrationFault[];
}

export interface WriteOptions {
  /**
   * How long write() waits for the disk before it throws, milliseconds. The write is not cancelled then, and may still
   * succeed.
   * @default no limit
   */
  readonly withinMs?: number;
}

export class Journal<T> {
  readonly directory: string;
  private readonly decode: (value: unknown) => T | undefined;
  /**
   * The last write or removal of each migration. The writes and removals of one migration happen in the order in which
   * they were asked for.
   */
  private readonly last = new Map<string, Promise<void>>();
  /** For each migration, the text that its temporary file holds, whole and on the disk. */
  private readonly prepared = new Map<string, string>();

  /** The record of each migration that this journal has written or read last. */
  private readonly newest = new Map<string, T>();
  /** How many writes and removals were begun. */
  private changes = 0;
  private readonly disk: JournalDisk;
  private readonly clock: Clock;
  private known: readonly Unreadable[] = [];

  private constructor(directory: string, decode: (value: unknown) => T | undefined, disk: JournalDisk, clock: Clock) {
    this.directory = directory;
    this.decode = decode;
    this.disk = disk;
    this.clock = clock;
  }

  /** The files that the last list() found to be no records. How their migrations stand is not known. */
  get unreadable(): readonly Unreadable[] {
    return this.known;
  }

  /**
   * Opens the journal in a directory. Makes the directory where it is missing, and removes what an interrupted write
   * left.
   * @param decode returns a record, or undefined when the value is none
   * @param disk for tests
   * @throws MigrationFault `state-directory`
   */
  static async open<T>(
    directory: string,
    decode: (value: unknown) => T | undefined,
    disk: JournalDisk = THIS_DISK,
    clock: Clock = systemClock,
  ): Promise<Journal<T>> {
    const journal = new Journal(directory, decode, disk, clock);
    await journal.guard(directory, "open", async () => {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      for (const name of await readdir(directory))
        if (name.endsWith(SUFFIX + TEMPORARY)) await rm(join(directory, name), { force: true });
      await disk.syncDirectory(directory);
    });
    return journal;
  }

  /**
   * Reads a directory that an agent may be writing to. Nothing is made or removed, since temporary files belong to that
   * agent.
   * @throws MigrationFault `state-directory` when the directory is not there or cannot be read
   */
  static contents<T>(directory: string, decode: (value: unknown) => T | undefined): Promise<JournalContents<T>> {
    return new Journal(directory, decode, THIS_DISK, systemClock).list();
  }

  /**
   * Prepares a later write() of the very same record, for a moment in which every millisecond counts: that write then
   * only renames the file and syncs the directory (docs/design/switchover.md#stopping-the-guest). Until that write the
   * earlier record stands, whatever happens. Never rejects: a record that could not be prepared is written as a whole
   * by write(), which reports its faults.
   */
  prepare(id: string, record: T): Promise<void> {
    const file = this.path(id);
    const text = encode(id, record);
    return this.inOrder(id, async () => {
      this.prepared.delete(id);
      try {
        await this.disk.writeWhole(file + TEMPORARY, text);
        this.prepared.set(id, text);
      } catch {
        // half a record that is left on a full disk would take room that the next record needs
        await rm(file + TEMPORARY, { force: true });
      }
    }).catch(ignoreOthersFault);
  }

  /**
   * Writes a record. Resolves only when the record would survive a power cut. After a fault the earlier record still
   * stands, with two exceptions. Where only the sync of the directory failed, the new record is in its place, and a
   * power cut may bring the earlier one back. A fault after `withinMs` says only that the disk has not answered: the
   * write keeps its place among the writes of its migration, and may still succeed. A caller that then wants another
   * record to stand has to write that record afterwards. A disk that hangs also keeps one of Node's four file threads
   * busy for each write that it does not answer.
   * @throws MigrationFault `state-directory`
   */
  write(id: string, record: T, { withinMs }: WriteOptions = {}): Promise<void> {
    const file = this.path(id);
    const text = encode(id, record);
    const written = this.inOrder(id, () =>
      this.guard(file, "write", async () => {
        const isPrepared = this.prepared.get(id) === text;
        this.prepared.delete(id);
        try {
          if (!isPrepared) await this.disk.writeWhole(file + TEMPORARY, text);
          await rename(file + TEMPORARY, file);
        } catch (thrown) {
          // half a record that is left on a full disk would take room that the next record needs
          await rm(file + TEMPORARY, { force: true }).catch(ignoreOthersFault);
          throw thrown;
        }
        this.newest.set(id, record);
        await this.disk.syncDirectory(this.directory);
      }),
    );
    if (withinMs === undefined) return written;
    return within(written, withinMs, () => this.hangs(file, withinMs), this.clock);
  }

  /**
   * Reads the record of a migration.
   * @returns undefined when there is no record
   * @throws MigrationFault `state-directory` when there is a file that is no record
   */
  async read(id: string): Promise<T | undefined> {
    const file = this.path(id);
    await this.last.get(id)?.catch(ignoreOthersFault);
    const before = this.changes;
    const text = await this.guard(file, "read", async () => {
      try {
        return await readSmallFile(file, FILE_BYTES_MAX);
      } catch (thrown) {
        if (errorCode(thrown) === "ENOENT") return undefined;
        throw thrown;
      }
    });
    if (text === undefined) return undefined;
    const record = this.parse(id, file, text);
    // a record that was written since this read began is newer; and a record that is known already is not replaced by
    // an equal one, so that latest() returns one object until another record is written
    if (this.changes === before && !this.newest.has(id)) this.newest.set(id, record);
    return record;
  }

  /**
   * Returns the record that this journal has written or read last, without a look at the disk: for moments in which a
   * disk that hangs must not be waited for. No other process writes to the directory (agent-lock.ts).
   */
  latest(id: string): T | undefined {
    return this.newest.get(id);
  }

  /**
   * Reads every record, sorted by id. Files that are no records are kept in `unreadable`.
   * @throws MigrationFault `state-directory` when the directory cannot be read
   */
  async list(): Promise<JournalContents<T>> {
    const entries: JournalEntry<T>[] = [];
    const unreadable: Unreadable[] = [];
    const names = await this.guard(this.directory, "read", () => readdir(this.directory));
    for (const name of names.filter((one) => one.endsWith(SUFFIX)).sort()) {
      const id = name.slice(0, -SUFFIX.length);
      if (!isId(id)) {
        unreadable.push([join(this.directory, name), noRecord(join(this.directory, name), id)]);
        continue;
      }
      try {
        const record = await this.read(id);
        if (record !== undefined) entries.push({ id, record });
      } catch (thrown) {
        unreadable.push([join(this.directory, name), MigrationFault.from(thrown, "state-directory")]);
      }
    }
    this.known = unreadable;
    return { entries, faults: unreadable.map(([, fault]) => fault) };
  }

  /**
   * Removes the records for which `isOver` is true, those with the oldest files first, until at most `keep` are left.
   * Only records that this journal has read or written count, so the caller calls list() before prune().
   * @param slack nothing is removed while there are at most `keep` + `slack` of these records
   */
  async prune(isOver: (record: T) => boolean, keep: number, slack = 0): Promise<void> {
    const over = [...this.newest].filter(([, record]) => isOver(record)).map(([id]) => id);
    if (over.length <= keep + slack) return;
    const aged = await Promise.all(over.map(async (id) => ({ id, at: await this.writtenAtMs(this.path(id)) })));
    aged.sort((a, b) => a.at - b.at);
    for (const { id } of aged.slice(0, aged.length - keep)) await this.remove(id);
  }

  /** Removes a record. Resolves when the removal would survive a power cut. A record that is not there is no fault. */
  remove(id: string): Promise<void> {
    const file = this.path(id);
    return this.inOrder(id, () =>
      this.guard(file, "remove", async () => {
        if (this.prepared.delete(id)) await rm(file + TEMPORARY, { force: true });
        await rm(file, { force: true });
        this.newest.delete(id);
        await this.disk.syncDirectory(this.directory);
      }),
    );
  }

  /** When the file was last written, milliseconds since the epoch; 0 for a file that somebody has removed. */
  private async writtenAtMs(file: string): Promise<number> {
    return this.guard(file, "read", () =>
      stat(file).then(
        ({ mtimeMs }) => mtimeMs,
        (thrown: unknown) => {
          if (errorCode(thrown) === "ENOENT") return 0;
          throw thrown;
        },
      ),
    );
  }

  private hangs(file: string, ms: number): MigrationFault {
    return new MigrationFault("state-directory", `Cannot write ${file}: the disk has not answered for ${ms} ms`, {
      advice: `Look at the disk of ${this.directory}; the record is written as soon as the disk answers again`,
    });
  }

  private path(id: string): string {
    if (!isId(id))
      throw new MigrationFault("invalid-argument", `${JSON.stringify(id)} cannot be the id of a migration`);
    return join(this.directory, id + SUFFIX);
  }

  private parse(id: string, file: string, text: string): T {
    const record = this.decode(decodeFile(id, text));
    if (record === undefined) throw noRecord(file, id);
    return record;
  }

  /** Runs an action after all earlier ones of this migration have ended. */
  private inOrder(id: string, action: () => Promise<void>): Promise<void> {
    this.changes++;
    const before = this.last.get(id);
    const mine = before === undefined ? action() : before.catch(ignoreOthersFault).then(action);
    this.last.set(id, mine);
    const forget = (): void => {
      if (this.last.get(id) === mine) this.last.delete(id);
    };
    mine.then(forget, forget);
    return mine;
  }

  /** Runs an action, and makes a fault of what it throws. */
  private async guard<R>(path: string, verb: string, action: () => Promise<R>): Promise<R> {
    try {
      return await action();
    } catch (thrown) {
      const reason = thrown instanceof Error ? thrown.message : String(thrown);
      throw new MigrationFault("state-directory", `Cannot ${verb} ${path}: ${reason}`, {
        cause: thrown,
        advice: `See that ${this.directory} is on a local disk with room and belongs to the agent's user`,
      });
    }
  }
}

const isId = (id: string): boolean => NAME.test(id) && !id.startsWith(".");

const noRecord = (file: string, id: string): MigrationFault =>
  new MigrationFault("state-directory", `${file} is not a record of migration ${id}, or not a whole one`, {
    advice:
      "Find out where the guest runs, on both hosts, before anything else; then move the file out of the directory and start the agent again",
  });

/** Ignores the fault of an earlier write: its caller was told, and the writes after it must still have their turn. */
const ignoreOthersFault = (): void => {};

const errorCode = (thrown: unknown): unknown =>
  typeof thrown === "object" && thrown !== null && "code" in thrown ? thrown.code : undefined;
