/**
 * The command of a guest definition, as this agent has started it: a QEMU, or a program that executes QEMU in its place
 * or waits for it. A command that starts a QEMU and leaves it is refused, because the agent could not tell the end of
 * such a command from the end of the guest. How a command is started, watched and ended is the part of CommandRun.
 */
import { MigrationFault } from "../../shared/fault.ts";
import type { QemuProcess } from "../../shared/protocol/ownership.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { type Clock, systemClock } from "../../shared/runtime/clock.ts";
import { orLate } from "../../shared/runtime/deferred.ts";
import { logIsWritten } from "../../shared/runtime/guest/guest-log.ts";
import { isOf, processBehind } from "../../shared/runtime/guest/monitor-process.ts";
import { findProcesses } from "../../shared/runtime/host/all-processes.ts";
import { identify } from "../../shared/runtime/host/process-identity.ts";
import type { Command, CommandEnd, CommandRun, OwnUnit } from "./command.ts";
import { ChildRun } from "./command-run.ts";
import { lastWordsIn } from "./last-words.ts";
import { DIES_WITHIN_MS } from "./process-end.ts";
import { UnitRun } from "./unit-run.ts";

/** The state of a QEMU that waits for a migration, as `query-status` tells it. */
const WAITS = "inmigrate";
/** How long explain() waits for the end of a command whose monitor was closed, milliseconds. */
const FOLLOWS_WITHIN_MS = 3000;
/** The pause between two looks for processes of the command, milliseconds. */
const LOOK_MS = 20;
/**
 * How many looks in a row must find no process before the agent concludes that none is left. A single look misses a
 * process that is just executing another program and so shows no environment, and a process that was started after the
 * look began, if the process that started it ends before the look comes to it.
 */
const LOOKS = 5;

export interface CommandOptions {
  readonly command: Command;
  /** Name of the guest. */
  readonly guest: string;
  /** Id of the migration. */
  readonly migration: string;
  /** The file that gets what the command writes. */
  readonly logPath: string;
  /** How systemd starts the command as a user of its own; undefined for a child of this agent. */
  readonly own?: OwnUnit | undefined;
  /** @default systemClock */
  readonly clock?: Clock | undefined;
}

/** A command that was started, and the QEMU that it has started or become. */
export class StartedCommand {
  /** Settles when the command has ended. Never rejects. */
  readonly ended: Promise<CommandEnd>;
  /** Rejects with the fault of a command that ends. It never resolves. */
  readonly failure: Promise<never>;
  private readonly options: CommandOptions;
  private readonly clock: Clock;
  private readonly run: CommandRun;
  /** Tells the process of the command from a later one with the same number; undefined where it had ended already. */
  private readonly identity: Promise<string | undefined>;
  /** How the command has ended; undefined while it runs. */
  private end: CommandEnd | undefined;

  /**
   * Starts the command.
   * @throws MigrationFault `qemu-start` where it cannot be started; `guest-busy` where its unit runs already
   */
  static async start(options: CommandOptions): Promise<StartedCommand> {
    const { own } = options;
    const run = own === undefined ? await ChildRun.start(options) : await UnitRun.start({ ...options, ...own });
    return new StartedCommand(run, options);
  }

  private constructor(run: CommandRun, options: CommandOptions) {
    this.run = run;
    this.options = options;
    this.clock = options.clock ?? systemClock;
    this.ended = run.ended;
    this.identity = identify(this.pid).catch(() => undefined);
    this.failure = this.ended.then(async (end) => {
      this.end = end;
      throw await this.whyEnded(end);
    });
    this.failure.catch(() => undefined);
  }

  get pid(): number {
    return this.run.pid;
  }

  /**
   * Finds the QEMU that answers at the monitor, once it has made its machine. That QEMU must be the command itself or
   * its descendant, and wait for a migration.
   * @param path of the monitor's socket
   * @throws MigrationFault `qemu-start` when it is another process or does not wait, and the faults of the monitor
   */
  async qemuAt(qmp: QmpClient, path: string, timeoutMs: number): Promise<QemuProcess> {
    const { guest } = this.options;
    const found = await processBehind(qmp, path, { timeoutMs });
    const identity = await this.identity;
    const isChild = identity !== undefined && (await isOf(found.pid, { pid: this.pid, identity }));
    if (!isChild) throw (await this.run.isOurs(found.pid)) ? this.leaves() : this.another(found.pid, path);
    const { status } = await qmp.execute("query-status", undefined, { timeoutMs });
    if (status === WAITS) return found;
    throw new MigrationFault(
      "qemu-start",
      `The destination's QEMU for ${guest} is ${status} at its start and does not wait for a migration: its command does not hand on the arguments that the agent appends (-S -incoming defer)`,
      { advice: `Let the command end with QEMU's arguments; in a shell script: exec qemu-system-x86_64 … "$@"` },
    );
  }

  /**
   * Makes the fault of a start that has failed. Where QEMU did not answer at its monitor, the fault has the last words
   * of the command, which may have ended or still run. Every other fault is returned as it is.
   */
  async explain(thrown: unknown): Promise<MigrationFault> {
    const fault = MigrationFault.from(thrown, "qemu-start");
    const { code, message } = fault;
    if (code === "qmp-disconnected" && (await orLate(this.ended, FOLLOWS_WITHIN_MS, this.clock)))
      return this.failure.catch((why: unknown) => MigrationFault.from(why));
    if (code !== "qmp-unreachable" && code !== "qmp-timeout" && code !== "qmp-disconnected") return fault;
    const words = await this.lastWords();
    return new MigrationFault(
      code,
      `The destination's QEMU for ${this.options.guest} (process ${this.pid}) does not answer its monitor: ${message}; ${said(words)}`,
      {
        cause: thrown,
        advice:
          "See what it waits for by trying the guest definition's command by hand on the destination; qemu.startTimeout says how long it may take",
      },
    );
  }

  /** Ends the command and all that it has started. Never rejects. */
  async endAll(): Promise<void> {
    const deadline = this.clock.monotonicMs() + DIES_WITHIN_MS;
    for (let looks = 0; looks < LOOKS && this.clock.monotonicMs() < deadline; looks++) {
      const pids = await this.alive();
      if (this.end === undefined && this.pid > 0) pids.push(this.pid);
      if (pids.length > 0) looks = 0;
      await this.run.kill(pids);
      await this.clock.sleep(LOOK_MS);
    }
  }

  /** Makes the fault of a command that has ended. */
  private async whyEnded(end: CommandEnd): Promise<MigrationFault> {
    // a QEMU that fails has started nothing, so one look is enough, and its words are not delayed
    for (let looks = end.code === 0 ? LOOKS : 1; looks > 0; looks--) {
      if ((await this.alive()).length > 0) return this.leaves();
      await this.clock.sleep(LOOK_MS);
    }
    const { guest, command } = this.options;
    await logIsWritten(this.options.logPath, this.clock);
    const words = await this.lastWords();
    const text =
      end.error === undefined
        ? `The destination's QEMU for ${guest} ended at its start (${howEnded(end)}): ${words || `${command[0]} said nothing`}`
        : `The destination's QEMU for ${guest} cannot be started: ${end.error.message}`;
    return new MigrationFault("qemu-start", text, {
      advice: "Try the guest definition's command by hand on the destination",
    });
  }

  /** Makes the fault of a command that starts QEMU and leaves it. */
  private leaves(): MigrationFault {
    const { guest, command } = this.options;
    return new MigrationFault(
      "qemu-start",
      `The command of ${guest} (${command[0]}) starts QEMU at the destination and leaves it: the agent cannot watch such a QEMU, and has ended it`,
      {
        advice:
          "Leave out -daemonize, nohup, setsid and & in the command: it must become QEMU (exec) or wait until QEMU ends",
      },
    );
  }

  /** Makes the fault of a monitor at which a process answers that the command has not started. */
  private another(pid: number, path: string): MigrationFault {
    return new MigrationFault(
      "qemu-start",
      `Process ${pid} answers at ${path}, which the command of ${this.options.guest} has not started as its child`,
      { advice: "See who has started that process, and that the command does not have another service start QEMU" },
    );
  }

  private lastWords(): Promise<string> {
    return lastWordsIn(this.options.logPath);
  }

  /** Finds the command's own process and the processes that it has started, as far as they have not ended. */
  private alive(): Promise<number[]> {
    return findProcesses((pid) => this.run.isOurs(pid));
  }
}

function howEnded({ code, signal }: CommandEnd): string {
  if (typeof signal === "string") return `by ${signal}`;
  return typeof code === "number" ? `status ${code}` : "its exit status is not known";
}

const said = (words: string): string => (words === "" ? "it has said nothing" : `it has said: ${words}`);
