/**
 * The destination's own QEMU: started paused from this host's definition, waiting for a migration, and from the commit
 * on no longer ours: it outlives the agent.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, readFile, rm } from "node:fs/promises";
import { MigrationFault } from "../shared/fault.ts";
import { QmpClient } from "../shared/qemu/qmp-client.ts";
import { type GuestDefinition, qemuLogPath } from "../shared/runtime/guest-definition.ts";

const RETRY_MS = 15;
const QUITS_WITHIN_MS = 3000;
/** Of QEMU's own output, in a fault. */
const LOG_TAIL_BYTES = 1000;

export interface StartOptions {
  readonly runtimeDirectory: string;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

export class GuestProcess {
  readonly definition: GuestDefinition;
  readonly qmp: QmpClient;
  readonly pid: number;
  readonly logPath: string;
  private readonly exited: Promise<unknown>;

  private constructor(
    definition: GuestDefinition,
    qmp: QmpClient,
    pid: number,
    logPath: string,
    exited: Promise<unknown>,
  ) {
    this.definition = definition;
    this.qmp = qmp;
    this.pid = pid;
    this.logPath = logPath;
    this.exited = exited;
  }

  /** @throws MigrationFault `qemu-start` with the last of QEMU's own words */
  static async start(definition: GuestDefinition, options: StartOptions): Promise<GuestProcess> {
    await mkdir(options.runtimeDirectory, { recursive: true });
    const logPath = qemuLogPath(definition.name, options.runtimeDirectory);
    const [program, ...args] = definition.command;
    // a socket of an earlier life of this guest would answer with a refusal, or worse, be somebody else's
    await rm(definition.qmp, { force: true });
    const log = await open(logPath, "w");
    const child = spawn(program, [...args, "-S", "-incoming", "defer"], {
      detached: true,
      stdio: ["ignore", log.fd, log.fd],
    });
    const exited = Promise.race([once(child, "exit"), once(child, "error")]);
    exited.catch(() => undefined);
    await log.close();
    child.unref();
    const failure = exited.then(async () => {
      const said = (await readFile(logPath, "utf8").catch(() => "")).slice(-LOG_TAIL_BYTES).trim();
      throw new MigrationFault(
        "qemu-start",
        `The destination's QEMU for ${definition.name} ended at its start: ${said || program}`,
        {
          advice: "Try the guest definition's command by hand on the destination",
        },
      );
    });
    failure.catch(() => undefined);
    const pid = child.pid ?? 0;
    try {
      const qmp = await Promise.race([connectWhenReady(definition, options), failure]);
      return new GuestProcess(definition, qmp, pid, logPath, exited);
    } catch (thrown) {
      if (pid > 0) kill(pid);
      await exited.catch(() => undefined);
      for (const left of [definition.qmp, logPath]) await rm(left, { force: true });
      throw MigrationFault.from(thrown, "qemu-start");
    }
  }

  /** The end of QEMU's own output: why it failed, when it did. */
  async lastWords(): Promise<string> {
    return (await readFile(this.logPath, "utf8").catch(() => "")).slice(-LOG_TAIL_BYTES).trim();
  }

  /** Ends the QEMU and removes what it leaves. */
  async discard(): Promise<void> {
    this.qmp.execute("quit", undefined, { timeoutMs: QUITS_WITHIN_MS }).catch(() => undefined);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(() => {
        kill(this.pid);
        resolve();
      }, QUITS_WITHIN_MS);
    });
    await Promise.race([this.exited.catch(() => undefined), late]);
    clearTimeout(timer);
    await this.exited.catch(() => undefined);
    this.qmp.close();
    await rm(this.definition.qmp, { force: true });
    await rm(this.logPath, { force: true });
  }

  /** The guest is on its own from here; its monitor is free for others. */
  letGo(): void {
    this.qmp.close();
  }
}

async function connectWhenReady(definition: GuestDefinition, options: StartOptions): Promise<QmpClient> {
  const deadline = performance.now() + options.timeoutMs;
  while (true) {
    try {
      return await QmpClient.connect(definition.qmp, { timeoutMs: options.timeoutMs, signal: options.signal });
    } catch (thrown) {
      const fault = MigrationFault.from(thrown);
      if (fault.code !== "qmp-unreachable" || performance.now() > deadline || options.signal.aborted) throw fault;
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // it has ended already, which is what was wanted
  }
}
