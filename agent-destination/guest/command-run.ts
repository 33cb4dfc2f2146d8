/**
 * How the command of a guest is started, watched and ended: as a child of this agent, here, or by systemd as a user of
 * its own (unit-run.ts). Whatever a child starts carries the mark of its migration in its environment, so that nothing
 * of it is left behind when it is refused.
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

/** The name of the environment variable whose value is the id of the migration. */
const MARK = "FERRY_MIGRATION";
/** Index of the session in statFields(). */
const SESSION = 3;

export interface ChildOptions {
  readonly command: Command;
  readonly guest: string;
  readonly migration: string;
  readonly logPath: string;
}

export class ChildRun implements CommandRun {
  readonly ended: Promise<CommandEnd>;
  private readonly child: ChildProcess;
  private readonly mark: string;

  /** @throws MigrationFault `qemu-start` where the directory of the guest cannot be made */
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

  /** True for a process in the session of the command, or with its mark. Neither is in what has ended. */
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

async function makeDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 }).catch((thrown: unknown) => {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new MigrationFault("qemu-start", `The directory of the guest's QEMU cannot be made: ${reason}`, {
      cause: thrown,
      advice: "A QEMU that this agent starts as its own user needs {runtime} in its definition in place of {guest}",
    });
  });
}

/** Of systemd for this agent alone: a guest that broke out of its QEMU could speak for the agent. */
const AGENTS_OWN =
  /^(NOTIFY_SOCKET|WATCHDOG_.*|LISTEN_.*|INVOCATION_ID|JOURNAL_STREAM|CREDENTIALS_DIRECTORY|FERRY_.*)$/;

/** The environment of this agent without what is meant for the agent alone: its settings among them. */
const ownEnvironment = (): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !AGENTS_OWN.test(name)));

const read = (path: string): Promise<string> => readFile(path, "latin1").catch(() => "");
