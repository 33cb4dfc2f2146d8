/**
 * The destination's own QEMU. It is started paused from this host's definition, and waits for a migration. Once it has
 * loaded the guest, it outlives the agent. This is the only file that says `cont` and `quit` to it.
 */

import { defined } from "../../shared/defined.ts";
import { MigrationFault } from "../../shared/fault.ts";
import type { QemuProcess } from "../../shared/protocol/ownership.ts";
import { killProcess } from "../../shared/qemu/inspect/guest-unit.ts";
import { hasRun, PAUSED_STATES } from "../../shared/qemu/inspect/preflight.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { type Clock, systemClock } from "../../shared/runtime/clock.ts";
import { orLate } from "../../shared/runtime/deferred.ts";
import { removeLeft } from "../../shared/runtime/files/remove-left.ts";
import type { GuestDefinition } from "../../shared/runtime/guest/guest-definition.ts";
import { logIsWritten, qemuLogPath, removeLog } from "../../shared/runtime/guest/guest-log.ts";
import { isListenedAt } from "../../shared/runtime/guest/guest-socket.ts";
import { hasEnded } from "../../shared/runtime/host/process-identity.ts";
import { checkProcess } from "./answering-process.ts";
import { GuestMonitor } from "./guest-monitor.ts";
import type { AdoptOptions, StartOptions } from "./guest-options.ts";
import { GuestUnits } from "./guest-units.ts";
import { lastWordsIn } from "./last-words.ts";
import { DIES_WITHIN_MS, endOf } from "./process-end.ts";
import { StartedCommand } from "./started-command.ts";

/** The arguments that make a QEMU wait for a migration; they follow those of the definition. */
export const WAITING_ARGUMENTS = ["-S", "-incoming", "defer"] as const;

/**
 * How long QEMU may take to end after `quit`, milliseconds; after that it is killed. A program that has started QEMU
 * and waits for it then has the same time to end by itself.
 */
const QUITS_WITHIN_MS = 3000;
/**
 * How long explain() waits for the end of a QEMU whose monitor is closed, milliseconds. The end of QEMU may be the
 * reason of the fault.
 */
const FOLLOWS_WITHIN_MS = 2000;
/** How long explain() waits for the end of a QEMU whose monitor is still open, milliseconds. */
const FOLLOWS_SOON_MS = 200;

interface Parts {
  readonly definition: GuestDefinition;
  readonly process: QemuProcess;
  readonly logPath: string;
  readonly monitor: GuestMonitor;
  readonly clock: Clock;
  /** Settles when the process has ended. */
  readonly exited: Promise<unknown>;
  /** The command, where this agent has started it; missing where an earlier life of the agent did. */
  readonly started?: StartedCommand;
}

/** A QEMU that this agent has started, or has adopted from an earlier life. */
export class GuestProcess {
  readonly definition: GuestDefinition;
  /**
   * The process of the QEMU itself, also where the command is a program that waits for QEMU. Its identity tells it from
   * a later process with the same number.
   */
  readonly process: QemuProcess;
  readonly logPath: string;
  /** Settles when the process has ended; its monitor may close long before. */
  readonly ended: Promise<unknown>;
  /** Described at HasImages (guest-images.ts). */
  keepsLocks = false;
  /** What onEnd() calls when the process has ended. */
  private readonly watchers = new Set<() => void>();
  private readonly monitors: GuestMonitor;
  private readonly clock: Clock;
  private readonly started: StartedCommand | undefined;

  private constructor(parts: Parts) {
    this.definition = parts.definition;
    this.process = parts.process;
    this.logPath = parts.logPath;
    this.monitors = parts.monitor;
    this.clock = parts.clock;
    this.ended = parts.exited;
    this.started = parts.started;
    const tell = (): void => {
      for (const watcher of this.watchers) watcher();
      this.watchers.clear();
    };
    void this.ended.then(tell, tell);
    parts.exited.catch(() => undefined);
  }

  /**
   * The connection to the monitor that is in use, or the last one: monitor() makes a new one where it was lost.
   * @throws MigrationFault `qmp-disconnected` where there never was one
   */
  get qmp(): QmpClient {
    return this.monitors.qmp;
  }

  /**
   * Starts the command of the definition, and checks that the QEMU that answers is the command or its descendant.
   * @throws MigrationFault with QEMU's last words; nothing of the command is left then
   */
  static async start(definition: GuestDefinition, options: StartOptions): Promise<GuestProcess> {
    const { runtimeDirectory, keeper, timeoutMs, migration, clock = systemClock } = options;
    const { name: guest, qmp, directory } = definition;
    const own = await GuestUnits.current?.ownUnit(definition, runtimeDirectory);
    const logPath = qemuLogPath(guest, directory);
    const second = keeper === undefined ? [] : GuestMonitor.secondMonitor(keeper);
    const command = [...definition.command, ...WAITING_ARGUMENTS, ...second] as const;
    // an earlier QEMU of this guest may have left its socket, which would refuse connections or lead to another program
    await removeLeft(qmp);
    const started = await StartedCommand.start({ command, guest, migration, logPath, own, clock });
    const monitor = GuestMonitor.of(definition, keeper, clock);
    const over = new AbortController();
    const isReady = async (): Promise<QemuProcess> => {
      await monitor.connectWhenReady({ timeoutMs, signal: AbortSignal.any([options.signal, over.signal]) });
      return await started.qemuAt(monitor.qmp, qmp, timeoutMs);
    };
    try {
      const process = await Promise.race([isReady(), started.failure]);
      void GuestUnits.current?.check(process.pid, guest);
      const exited = process.pid === started.pid ? started.ended : endOf(process, clock);
      return new GuestProcess({ definition, process, logPath, monitor, clock, exited, started });
    } catch (thrown) {
      // QEMU greets one client. A connection that still waits for this QEMU must not be the one that the next QEMU of
      // this guest greets
      over.abort();
      const fault = await started.explain(thrown);
      monitor.dismissKeeper();
      monitor.close();
      await started.endAll();
      if (await isListenedAt(qmp)) monitor.removeOwnPlaces();
      else monitor.removeFiles();
      await removeLog(logPath);
      throw fault;
    }
  }

  /**
   * Connects to a QEMU that an earlier life of this agent started.
   * @param process as the journal names it
   * @returns undefined when that process has ended
   * @throws MigrationFault when this host cannot tell whether it has ended, or when its monitor cannot be had
   */
  static async adopt(
    definition: GuestDefinition,
    process: QemuProcess,
    { keeper, missesPages, clock = systemClock, ...bound }: AdoptOptions,
  ): Promise<GuestProcess | undefined> {
    if (await hasEnded(process)) return undefined;
    const monitor = GuestMonitor.of(definition, keeper, clock);
    const logPath = qemuLogPath(definition.name, definition.directory);
    try {
      await monitor.takeOver(bound, { missesPages, hasEnded: () => hasEnded(process) });
      await checkProcess(monitor.qmp, definition, { process, missesPages });
    } catch (thrown) {
      monitor.close();
      if (await hasEnded(process)) return undefined;
      throw thrown;
    }
    return new GuestProcess({ definition, process, logPath, monitor, clock, exited: endOf(process, clock) });
  }

  /**
   * Gives an open connection to QEMU's monitor, and makes a new one when the last one was lost.
   * @returns undefined when QEMU has ended
   * @throws MigrationFault when QEMU does not answer, or another process answers
   */
  async monitor(): Promise<QmpClient | undefined> {
    if (await this.hasEnded()) return undefined;
    const before = this.monitors.client;
    const qmp = await this.monitors.open();
    // the sockets of a keeper and of a second monitor belong to this migration alone, so no other process answers there
    if (qmp === before || this.monitors.isKept) return qmp;
    try {
      await checkProcess(qmp, this.definition, { process: this.process, missesPages: false });
      return qmp;
    } catch (thrown) {
      qmp.close();
      throw thrown;
    }
  }

  /** Lets a keeper hold the monitor from now on. The keeper was started with QEMU, and outlives this agent. */
  keepMonitor(options: Pick<StartOptions, "timeoutMs" | "signal">): Promise<void> {
    return this.monitors.keep(options, () => this.hasEnded());
  }

  /**
   * Dismisses the keeper (monitor-keeper.ts) where the migration does without post-copy: no keeper is needed then, and
   * this agent keeps its own connection to QEMU's monitor. The keeper waits for the next QEMU, or ends.
   */
  dismissKeeper(): void {
    this.monitors.dismissKeeper();
  }

  /**
   * Calls `ended` when the process has ended.
   * @returns a function that cancels the call and drops `ended`
   */
  onEnd(ended: () => void): () => void {
    this.watchers.add(ended);
    return () => void this.watchers.delete(ended);
  }

  /**
   * Tells whether the process has ended.
   * @throws MigrationFault when this host cannot tell
   */
  hasEnded(): Promise<boolean> {
    return hasEnded(this.process);
  }

  /**
   * Calls `started` whenever an operator or another program says `cont` to this QEMU. Events that QEMU sent while this
   * agent had no connection are lost, so each new connection asks QEMU whether the guest runs.
   * @returns a function that ends the calls
   */
  onResume(started: () => void): () => void {
    const look = async (qmp: QmpClient): Promise<void> => {
      const { status } = await qmp.execute("query-status");
      if (hasRun(status)) started();
    };
    return this.monitors.subscribe(
      ({ event }) => {
        if (event === "RESUME") started();
      },
      // a connection that ends before it answers is followed by another one
      (qmp) => void look(qmp).catch(() => undefined),
    );
  }

  /**
   * Starts the guest. The caller has checked that the journal says `running` for this very process.
   * @returns `refusal`: QEMU's words when it has refused, so that the guest has not run; undefined when it has not
   *   refused
   * @throws MigrationFault `qemu-failed` when QEMU is in a state from which no arriving guest is started; another fault
   *   when QEMU does not answer, or has refused `cont` and may have run the guest all the same
   */
  async cont(qmp: QmpClient): Promise<{ readonly refusal: string | undefined }> {
    const { status } = await qmp.execute("query-status");
    // the guest was started already: it runs, or is in a state that only a guest that has run gets into
    if (hasRun(status)) return { refusal: undefined };
    if (!PAUSED_STATES.includes(status))
      throw new MigrationFault(
        "qemu-failed",
        `The destination's QEMU is ${status}, so the agent does not start the guest`,
      );
    let ran = false;
    const unsubscribe = qmp.subscribe(({ event }) => {
      ran ||= event === "RESUME";
    });
    try {
      await qmp.execute("cont");
      return { refusal: undefined };
    } catch (thrown) {
      const fault = MigrationFault.from(thrown);
      // only an answer of QEMU proves that the guest has not run, and only while the guest is still paused
      if (fault.code !== "qmp-command" || ran) throw fault;
      const after = await qmp.execute("query-status");
      if (ran || !PAUSED_STATES.includes(after.status)) throw fault;
      return { refusal: fault.message };
    } finally {
      unsubscribe();
    }
  }

  /** Reads the end of QEMU's own output, which says why QEMU failed, if it did. */
  lastWords(): Promise<string> {
    return lastWordsIn(this.logPath);
  }

  /** Makes the fault of a QEMU that has ended, with its last words. */
  async endFault(): Promise<MigrationFault> {
    return new MigrationFault("qemu-failed", `The destination's QEMU ended: ${await this.wordsOrNone()}`);
  }

  /**
   * Adds QEMU's last words to a fault that the end of QEMU may have caused. Where QEMU does not end soon, and for any
   * other fault, the fault is returned as it is.
   */
  async explain(fault: MigrationFault): Promise<MigrationFault> {
    if (fault.code !== "qmp-disconnected" && fault.code !== "qemu-failed") return fault;
    const withinMs = this.monitors.client?.isOpen === true ? FOLLOWS_SOON_MS : FOLLOWS_WITHIN_MS;
    if (!(await orLate(this.ended, withinMs, this.clock))) return fault;
    const words = await this.wordsOrNone();
    if (fault.message.includes(words)) return fault;
    const { advice } = fault;
    return new MigrationFault("qemu-failed", `${fault.message}; the destination's QEMU has ended: ${words}`, {
      cause: fault,
      ...defined({ advice }),
    });
  }

  /** Reads the last words of a QEMU that has ended, once all of them are in its log. */
  private async wordsOrNone(): Promise<string> {
    await logIsWritten(this.logPath, this.clock);
    return (await this.lastWords()) || "it said nothing";
  }

  /**
   * Ends QEMU, and removes what it leaves.
   * @throws MigrationFault `qemu-failed` when the kernel does not let it end
   */
  async discard(): Promise<void> {
    this.dismissKeeper();
    const { client } = this.monitors;
    client?.execute("quit", undefined, { timeoutMs: QUITS_WITHIN_MS }).catch(() => undefined);
    const quitsWithinMs = client === undefined ? 0 : QUITS_WITHIN_MS;
    if (!(await orLate(this.ended, quitsWithinMs, this.clock))) {
      await killProcess(this.process.pid);
      if (!(await orLate(this.ended, DIES_WITHIN_MS, this.clock)))
        throw new MigrationFault(
          "qemu-failed",
          `Process ${this.process.pid}, a QEMU of ${this.definition.name}, does not end`,
        );
    }
    // a program that waited for QEMU ends by itself, unless it starts another QEMU
    if (this.started !== undefined && !(await orLate(this.started.ended, QUITS_WITHIN_MS, this.clock)))
      await this.started.endAll();
    this.monitors.close();
    this.monitors.removeFiles();
    await removeLog(this.logPath);
  }

  /** Closes the connections, so that QEMU can be adopted in another try. A keeper stays. */
  letGoAgain(): void {
    this.monitors.close();
  }

  /** Closes the connections and ends the keeper, so that the monitor of the guest is free for others. */
  letGo(): void {
    this.monitors.letGo();
  }
}
