/**
 * The source QEMU of a migration: the one process that the journal names. The agent says `cont`, `quit` and
 * `migrate_cancel` here and nowhere else. Before each of them it checks which process answers at the monitor; before
 * `cont` and `quit` it checks QEMU's run state too, and before `cont` whether the source may run the guest.
 */
import { stat } from "node:fs/promises";
import { MigrationFault } from "../../shared/fault.ts";
import { type QemuProcess, type SourceRecord, sourceMayRun } from "../../shared/protocol/ownership.ts";
import type { SourceQemu } from "../../shared/protocol/source-states.ts";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { SourceConfig } from "../../shared/runtime/config/config.ts";
import { loadGuest } from "../../shared/runtime/guest/guest-definition.ts";
import { anotherAnswers, processBehind } from "../../shared/runtime/guest/monitor-process.ts";
import { hasEnded } from "../../shared/runtime/host/process-identity.ts";

/** What an agent saw of the guest on this host. */
export interface Sight {
  readonly own: SourceQemu;
  /** Run state of the migration's own QEMU, as `query-status` says it; empty when it was not asked. */
  readonly status: string;
  /**
   * True when a process that is not this migration's answers at the guest's monitor and runs the guest, or does not say
   * what it does.
   */
  readonly anotherRuns: boolean;
}

/** What an agent knows of who may run the guest. */
interface Ownership {
  /** What the journal holds of this migration; undefined where it holds nothing. */
  readonly record: SourceRecord | undefined;
  /**
   * The token of the grant that the destination has refused, or that the operator has taken back; undefined where there
   * is none.
   */
  readonly refusedToken: string | undefined;
}

const QUITS_WITHIN_MS = 10_000;
/**
 * How long QEMU may take to answer `migrate_cancel`, milliseconds. The time is short, since a QEMU that hangs must not
 * hold up the return of its guest: the agent also closes the socket of QEMU's stream, and QEMU resumes the guest by
 * itself when that socket closes.
 */
const CANCELS_WITHIN_MS = 1000;
/** A look that takes longer than this, milliseconds, counts as `unknown`, and the caller looks again. */
const LOOKS_WITHIN_MS = 2000;
/** Run states from which `cont` starts a guest that a migration of this agent has stopped. */
const STOPPED: readonly string[] = ["postmigrate", "paused"];

export class OwnQemu {
  private readonly guest: string;
  private readonly config: SourceConfig;
  private readonly clock: Clock;
  private known: QemuProcess | undefined;
  /** Connections at which this process was found to answer. A connection always leads to the same process. */
  private readonly met = new WeakSet<QmpClient>();
  /** Inode of the monitor's socket when the process was met. A program that binds the path again makes another file. */
  private socketFile: number | undefined;

  /**
   * Makes the QEMU of a migration: it is `known`, or the process that meet() finds later.
   * @param known the process that the journal names; undefined until meet()
   */
  constructor(guest: string, config: SourceConfig, clock: Clock, known?: QemuProcess) {
    this.guest = guest;
    this.config = config;
    this.clock = clock;
    this.known = known;
  }

  get process(): QemuProcess | undefined {
    return this.known;
  }

  /**
   * Takes the QEMU that answers at this monitor as the QEMU of this migration.
   * @param path of the monitor's socket
   * @throws MigrationFault `not-supported` when its process cannot be found
   */
  async meet(qmp: QmpClient, path: string): Promise<void> {
    this.known = await processBehind(qmp, path);
    this.met.add(qmp);
    this.socketFile = await fileOf(path);
  }

  /** Tells whether the process has ended. @throws MigrationFault when that cannot be told */
  async hasEnded(): Promise<boolean> {
    return hasEnded(this.require());
  }

  /** Tells whether the process is known to have ended. The answer is false where this cannot be found out. */
  isSeenEnded(): Promise<boolean> {
    return this.hasEnded().catch(() => false);
  }

  /**
   * Connects to the monitor of this process.
   * @param timeoutMs for the connection and for each command. @default the setting qmp.timeout
   * @returns undefined when its process has ended
   * @throws MigrationFault when it cannot be told whether the process has ended, when another process answers at the
   *   monitor's socket, or when another client holds the monitor
   */
  async connect(timeoutMs = this.config.qmpTimeoutMs): Promise<QmpClient | undefined> {
    if (await this.hasEnded()) return undefined;
    const { qmp: path } = await loadGuest(this.guest, this.config);
    const qmp = await QmpClient.connect(path, { timeoutMs }, this.clock).catch(async (thrown: unknown) => {
      if (await this.hasEnded()) return undefined;
      throw thrown;
    });
    if (qmp === undefined) return undefined;
    try {
      await this.check(qmp);
      return qmp;
    } catch (thrown) {
      qmp.close();
      throw thrown;
    }
  }

  /**
   * Finds out what the guest does on this host, in any QEMU. Never rejects: `own` is `unknown` where the look fails.
   * @param postcopy true when this agent has stopped the guest itself: any run state but `running` counts as retired
   * @param qmp an open monitor of this process, where there is one
   */
  async look(postcopy: boolean, qmp?: QmpClient): Promise<Sight> {
    const options = { timeoutMs: LOOKS_WITHIN_MS };
    try {
      if (this.known === undefined) return UNKNOWN;
      if (qmp?.isOpen) {
        const sight = seen((await qmp.execute("query-status", undefined, options)).status, postcopy);
        return (await this.isReplaced()) ? { ...sight, anotherRuns: await this.anotherRuns() } : sight;
      }
      const mine = await this.connect(LOOKS_WITHIN_MS);
      if (mine === undefined) return { own: "gone", status: "", anotherRuns: await this.anotherRuns() };
      try {
        return seen((await mine.execute("query-status", undefined, options)).status, postcopy);
      } finally {
        mine.close();
      }
    } catch {
      return UNKNOWN;
    }
  }

  /** Tells whether another program has bound the monitor's path since this process was met. */
  private async isReplaced(): Promise<boolean> {
    if (this.socketFile === undefined) return false;
    const { qmp: path } = await loadGuest(this.guest, this.config);
    return (await fileOf(path)) !== this.socketFile;
  }

  /**
   * Tells whether another QEMU runs the guest; called when this migration's own QEMU does not answer at the path.
   * Another QEMU that listens at the path and does not answer counts as one that runs the guest.
   */
  private async anotherRuns(): Promise<boolean> {
    const { qmp: path } = await loadGuest(this.guest, this.config);
    try {
      const other = await QmpClient.connect(path, { timeoutMs: LOOKS_WITHIN_MS }, this.clock);
      // the connection is closed whatever QEMU answers: a monitor serves one client, and this is another QEMU
      const asked = other.execute("query-status", undefined, { timeoutMs: LOOKS_WITHIN_MS });
      const { status } = await asked.finally(() => other.close());
      // a QEMU that waits for an incoming migration, or has completed one, runs no guest
      return status !== "inmigrate" && status !== "postmigrate";
    } catch (thrown) {
      return MigrationFault.from(thrown).code !== "qmp-unreachable";
    }
  }

  /**
   * Starts the guest, which a migration of this agent has stopped.
   * @throws MigrationFault `in-doubt` when the destination may run the guest; `qemu-failed` when QEMU is in none of the
   *   run states STOPPED, when another process answers at this monitor, or when another QEMU that may run the guest has
   *   taken the monitor's path
   */
  async cont(qmp: QmpClient, { record, refusedToken }: Ownership): Promise<void> {
    if (!sourceMayRun(record, refusedToken))
      throw new MigrationFault(
        "in-doubt",
        `The journal says that ${this.guest} is ${record?.kind}, so the agent does not start it`,
      );
    await this.check(qmp);
    const { status } = await qmp.execute("query-status");
    if ((await this.isReplaced()) && (await this.anotherRuns()))
      throw new MigrationFault(
        "qemu-failed",
        "Another QEMU of the guest has taken the path of its monitor, so the agent does not start the guest",
        {
          advice: "End the other QEMU, which was started beside the one that was migrated",
        },
      );
    if (!STOPPED.includes(status))
      throw new MigrationFault("qemu-failed", `The source QEMU is ${status}, so the agent does not start the guest`);
    await qmp.execute("cont");
  }

  /** Cancels QEMU's migration, which this agent has begun. */
  async cancelMigration(qmp: QmpClient): Promise<void> {
    await this.check(qmp);
    await qmp.execute("migrate_cancel", undefined, { timeoutMs: CANCELS_WITHIN_MS });
  }

  /**
   * Ends the QEMU that a migration has left behind, and waits for the end of its process, 10 s at most.
   * @param states run states in which the migration may have left it; in any other state somebody still needs the QEMU.
   *   undefined: an operator has said that this QEMU is to end, whatever it does
   * @throws MigrationFault `qemu-failed` when QEMU is in another state, another process answers, or QEMU does not end
   */
  async quit(qmp: QmpClient, states: readonly string[] | undefined): Promise<void> {
    await this.check(qmp);
    const { status } = await qmp.execute("query-status");
    if (states !== undefined && !states.includes(status))
      throw new MigrationFault("qemu-failed", `The QEMU of ${this.guest} is ${status}, not ${states.join(" or ")}`);
    await qmp.execute("quit", undefined, { timeoutMs: QUITS_WITHIN_MS });
    const deadline = this.clock.monotonicMs() + QUITS_WITHIN_MS;
    while (!(await this.hasEnded())) {
      if (this.clock.monotonicMs() > deadline)
        throw new MigrationFault("qemu-failed", `The QEMU of ${this.guest} was told to quit, and is still there`);
      await this.clock.sleep(POLL_MS);
    }
  }

  private async check(qmp: QmpClient): Promise<void> {
    if (this.met.has(qmp)) return;
    const { qmp: path } = await loadGuest(this.guest, this.config);
    const answers = await processBehind(qmp, path);
    const known = this.require();
    if (answers.identity !== known.identity) throw anotherAnswers(answers, path, known);
    this.met.add(qmp);
  }

  private require(): QemuProcess {
    if (this.known !== undefined) return this.known;
    throw new MigrationFault(
      "qemu-failed",
      `The record of this migration does not name the QEMU of ${this.guest}, so the agent sends no command to any QEMU`,
      { advice: "An older agent wrote the record; look at the guest on both hosts" },
    );
  }
}

const POLL_MS = 20;

/** @returns the inode of the file; undefined where there is no such file */
const fileOf = (path: string): Promise<number | undefined> =>
  stat(path).then(
    ({ ino }) => ino,
    () => undefined,
  );

const UNKNOWN: Sight = { own: "unknown", status: "", anotherRuns: false };

/**
 * Judges from QEMU's run state whether QEMU is retired, that is, has completed its migration and never runs the guest
 * by itself again. In post-copy this agent stops the guest before QEMU's migration could, so that QEMU never resumes
 * the guest by itself: a QEMU that runs the guest was told to run it, and in any other run state QEMU counts as
 * retired.
 */
function seen(status: string, postcopy: boolean): Sight {
  const retired = postcopy ? status !== "running" : status === "postmigrate";
  return { own: retired ? "retired" : "active", status, anotherRuns: false };
}
