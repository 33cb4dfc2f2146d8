/**
 * The command of a guest definition, as this agent has started it: a QEMU, or a program that executes QEMU in its place
 * or waits for it. A command that starts a QEMU and leaves it is refused, because nobody could tell its end from the
 * guest's. Whatever a command starts carries the mark of its migration in its environment, so that nothing of it is
 * left behind when it is refused.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { open, readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { MigrationFault } from "../shared/fault.ts";
import type { QemuProcess } from "../shared/protocol/ownership.ts";
import type { QmpClient } from "../shared/qemu/qmp-client.ts";
import { findProcesses } from "../shared/runtime/all-processes.ts";
import { orLate } from "../shared/runtime/deferred.ts";
import { isOf, processBehind } from "../shared/runtime/monitor-process.ts";
import { identify, statFields } from "../shared/runtime/process-identity.ts";
import { type Command, inOwnUnit } from "./guest-units.ts";
import { lastWordsIn } from "./last-words.ts";

/** The name of the environment variable whose value is the id of the migration. */
const MARK = "FERRY_MIGRATION";
/** The state of a QEMU that waits for a migration, as `query-status` says it. */
const WAITS = "inmigrate";
/** How long the end of a command is waited for whose monitor was closed already, milliseconds. */
const FOLLOWS_WITHIN_MS = 3000;
/** How long the kernel may take to end what was killed, milliseconds, and the pause between two looks. */
const DIES_WITHIN_MS = 10_000;
const LOOK_MS = 20;
/**
 * Looks in a row that find nothing before there is nothing. A single look misses a process that is executing another
 * program just then, which has no environment, and one that a process makes which ends meanwhile.
 */
const LOOKS = 5;
/** Index of the session in statFields(). */
const SESSION = 3;

export interface CommandOptions {
  readonly command: Command;
  /** Name of the guest. */
  readonly guest: string;
  /** Id of the migration. */
  readonly migration: string;
  /** The file that gets what the command writes. */
  readonly logPath: string;
}

/** How a command ended: in one of the three ways. */
interface CommandEnd {
  readonly code?: number | null;
  readonly signal?: NodeJS.Signals | null;
  readonly error?: Error;
}

export class StartedCommand {
  /** Settles when the command has ended. Never rejects. */
  readonly ended: Promise<CommandEnd>;
  /** Rejects with the fault of a command that ends. It never resolves. */
  readonly failure: Promise<never>;
  private readonly options: CommandOptions;
  private readonly child: ChildProcess;
  private readonly identity: Promise<string | undefined>;
  private end: CommandEnd | undefined;

  static async start(options: CommandOptions): Promise<StartedCommand> {
    const log = await open(options.logPath, "w");
    const [program, ...args] = inOwnUnit(options.command, options.guest);
    const child = spawn(program, args, {
      detached: true,
      stdio: ["ignore", log.fd, log.fd],
      env: { ...ownEnvironment(), [MARK]: options.migration },
    });
    const started = new StartedCommand(child, options);
    await log.close();
    return started;
  }

  private constructor(child: ChildProcess, options: CommandOptions) {
    this.child = child;
    this.options = options;
    this.ended = Promise.race([
      once(child, "exit").then(([code, signal]): CommandEnd => ({ code, signal })),
      once(child, "error").then(([error]): CommandEnd => ({ error })),
    ]).catch((error: Error): CommandEnd => ({ error }));
    child.unref();
    this.identity = identify(this.pid).catch(() => undefined);
    this.failure = this.ended.then(async (end) => {
      this.end = end;
      throw await this.whyEnded(end);
    });
    this.failure.catch(() => undefined);
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /**
   * Finds the QEMU that answers at the monitor, once it has made its machine. It must be the command itself or a
   * descendant, and wait for a migration.
   * @param path of the monitor's socket
   * @throws MigrationFault `qemu-start` when it is not so, and the faults of the monitor
   */
  async qemuAt(qmp: QmpClient, path: string, timeoutMs: number): Promise<QemuProcess> {
    const { guest } = this.options;
    const found = await processBehind(qmp, path, { timeoutMs });
    const identity = await this.identity;
    const isChild = identity !== undefined && (await isOf(found.pid, { pid: this.pid, identity }));
    if (!isChild) throw (await this.isOurs(found.pid)) ? this.leaves() : this.another(found.pid, path);
    const { status } = await qmp.execute("query-status", undefined, { timeoutMs });
    if (status === WAITS) return found;
    throw new MigrationFault(
      "qemu-start",
      `The destination's QEMU for ${guest} is ${status} at its start and does not wait for a migration: its command does not hand on the arguments that the agent appends (-S -incoming defer)`,
      { advice: `Let the command end with QEMU's arguments; in a shell script: exec qemu-system-x86_64 … "$@"` },
    );
  }

  /** Tells what a failure of the start means, with the last words of the command, whether it has ended or not. */
  async explain(thrown: unknown): Promise<MigrationFault> {
    const fault = MigrationFault.from(thrown, "qemu-start");
    const { code, message } = fault;
    if (code === "qmp-disconnected" && (await orLate(this.ended, FOLLOWS_WITHIN_MS)))
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
    const deadline = performance.now() + DIES_WITHIN_MS;
    for (let looks = 0; looks < LOOKS && performance.now() < deadline; looks++) {
      const pids = await this.alive();
      if (this.end === undefined && this.pid > 0) pids.push(this.pid);
      if (pids.length > 0) looks = 0;
      for (const pid of pids) kill(pid);
      await delay(LOOK_MS);
    }
  }

  private async whyEnded(end: CommandEnd): Promise<MigrationFault> {
    // a QEMU that fails has started nothing, and its words are not held up
    for (let looks = end.code === 0 ? LOOKS : 1; looks > 0; looks--) {
      if ((await this.alive()).length > 0) return this.leaves();
      await delay(LOOK_MS);
    }
    const { guest, command } = this.options;
    const words = await this.lastWords();
    const text =
      end.error === undefined
        ? `The destination's QEMU for ${guest} ended at its start (${howEnded(end)}): ${words || `${command[0]} said nothing`}`
        : `The destination's QEMU for ${guest} cannot be started: ${end.error.message}`;
    return new MigrationFault("qemu-start", text, {
      advice: "Try the guest definition's command by hand on the destination",
    });
  }

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

  private another(pid: number, path: string): MigrationFault {
    return new MigrationFault(
      "qemu-start",
      `Process ${pid} answers at ${path}, which the command of ${this.options.guest} has not started as its child`,
      { advice: "See who has started that process, and that the command does not start QEMU by another service" },
    );
  }

  private lastWords(): Promise<string> {
    return lastWordsIn(this.options.logPath);
  }

  /** Finds the processes that the command has started and that have not ended. */
  private alive(): Promise<number[]> {
    return findProcesses((pid) => this.isOurs(pid));
  }

  /** True for a process in the session of the command, or with its mark. Neither is in what has ended. */
  private async isOurs(pid: number): Promise<boolean> {
    const [stat, environment] = await Promise.all([read(`/proc/${pid}/stat`), read(`/proc/${pid}/environ`)]);
    const fields = statFields(stat);
    const isInSession = fields[0] !== "Z" && this.pid > 0 && fields[SESSION] === String(this.pid);
    return isInSession || environment.split("\0").includes(`${MARK}=${this.options.migration}`);
  }
}

/** Of systemd for this agent alone: a guest that broke out of its QEMU could speak for the agent. */
const AGENTS_OWN =
  /^(NOTIFY_SOCKET|WATCHDOG_.*|LISTEN_.*|INVOCATION_ID|JOURNAL_STREAM|CREDENTIALS_DIRECTORY|FERRY_.*)$/;

/** The environment of this agent without what is meant for the agent alone: its settings among them. */
const ownEnvironment = (): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !AGENTS_OWN.test(name)));

const read = (path: string): Promise<string> => readFile(path, "latin1").catch(() => "");

const howEnded = ({ code, signal }: CommandEnd): string =>
  signal === null || signal === undefined ? `status ${code}` : `by ${signal}`;

const said = (words: string): string => (words === "" ? "it has said nothing" : `it has said: ${words}`);

export function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // it has ended already, which is what was wanted
  }
}
