/**
 * The command of a guest as a child of this agent: how it is started, watched and ended. A command that systemd starts
 * as a user of its own is not started here (unit-run.ts). Every process that the child starts carries the mark of the
 * migration in its environment, so that none of them is left behind when the migration is refused.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { MigrationFault } from "../../shared/fault.ts";
import { killProcess } from "../../shared/qemu/inspect/guest-unit.ts";
import { withBoundedLog } from "../../shared/runtime/guest/guest-log.ts";
import { statFields } from "../../shared/runtime/host/process-identity.ts";
import type { Command, CommandEnd, CommandRun } from "./command.ts";
import { inOwnUnit } from "./guest-units.ts";

/** The name of the environment variable that is the mark; its value is the id of the migration. */
const MARK = "FERRY_MIGRATION";
/** The index of the session in statFields(). */
const SESSION = 3;

export interface ChildOptions {
  readonly command: Command;
  readonly guest: string;
  readonly migration: string;
  readonly logPath: string;
}

/** A command that runs as a child of this agent. */
export class ChildRun implements CommandRun {
  readonly ended: Promise<CommandEnd>;
  private readonly child: ChildProcess;
  private readonly mark: string;

  /**
   * Starts the command.
   * @throws MigrationFault `qemu-start` where the directory of the guest cannot be made
   */
  static async start({ command, guest, migration, logPath }: ChildOptions): Promise<ChildRun> {
    await makeDirectory(dirname(logPath));
    const log = await open(logPath, "w");
    const [program, ...args] = inOwnUnit(withBoundedLog(command, logPath), guest);
    const child = spawn(program, args, {
      detached: true,
      stdio: ["ignore", log.fd, log.fd],
      env: { ...ownEnvironment(), [MARK]: migration },
    });
    const run = new ChildRun(child, `${MARK}=${migration}`);
    await log.close();
    return run;
  }

  private constructor(child: ChildProcess, mark: string) {
    this.child = child;
    this.mark = mark;
    this.ended = Promise.race([
      once(child, "exit").then(([code, signal]): CommandEnd => ({ code, signal })),
      once(child, "error").then(([error]): CommandEnd => ({ error })),
    ]).catch((error: Error): CommandEnd => ({ error }));
    child.unref();
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /**
   * True for a living process in the session of the command, or with the mark of the migration. A process that has
   * ended shows neither.
   */
  async isOurs(pid: number): Promise<boolean> {
    const [stat, environment] = await Promise.all([read(`/proc/${pid}/stat`), read(`/proc/${pid}/environ`)]);
    const fields = statFields(stat);
    const isInSession = fields[0] !== "Z" && this.pid > 0 && fields[SESSION] === String(this.pid);
    return isInSession || environment.split("\0").includes(this.mark);
  }

  async kill(pids: readonly number[]): Promise<void> {
    for (const pid of pids) await killProcess(pid);
  }
}

/** Makes the directory for the log and the sockets of this QEMU, if it is missing. */
async function makeDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 }).catch((thrown: unknown) => {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new MigrationFault("qemu-start", `The directory of the guest's QEMU cannot be made: ${reason}`, {
      cause: thrown,
      advice: "A QEMU that this agent starts as its own user needs {runtime} in its definition in place of {guest}",
    });
  });
}

/**
 * The names of environment variables that are meant for this agent alone: what systemd gives it, and its own settings.
 * With the former a guest that broke out of its QEMU could speak to systemd for the agent.
 */
const AGENTS_OWN =
  /^(NOTIFY_SOCKET|WATCHDOG_.*|LISTEN_.*|INVOCATION_ID|JOURNAL_STREAM|CREDENTIALS_DIRECTORY|FERRY_.*)$/;

/** The environment of this agent without the variables that are meant for the agent alone. */
const ownEnvironment = (): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !AGENTS_OWN.test(name)));

const read = (path: string): Promise<string> => readFile(path, "latin1").catch(() => "");
