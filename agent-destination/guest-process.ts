/**
 * The destination's own QEMU: started paused from this host's definition, waiting for a migration, and from the commit
 * on no longer ours: it outlives the agent.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, readFile, rm } from "node:fs/promises";
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { MigrationFault } from "../shared/fault.ts";
import { QmpClient } from "../shared/qemu/qmp-client.ts";
import { type GuestDefinition, qemuLogPath } from "../shared/runtime/guest-definition.ts";
import { identify } from "../shared/runtime/process-identity.ts";
import { GuestUnits, inOwnUnit } from "./guest-units.ts";
import { KeeperProcess } from "./keeper-process.ts";

/** Of a QEMU that waits for a migration, behind those of its definition. */
export const WAITING_ARGUMENTS = ["-S", "-incoming", "defer"] as const;

const RETRY_MS = 15;
/** How often an adopted process, which is no child, is looked for. */
const LOOK_MS = 200;
const QUITS_WITHIN_MS = 3000;
/** Of QEMU's own output, in a fault. */
const LOG_TAIL_BYTES = 1000;

export interface StartOptions {
  readonly runtimeDirectory: string;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Where a program of its own may have the monitor later (keepMonitor): it is started beside QEMU. */
  readonly keeperPath?: string | undefined;
}

interface Parts {
  readonly definition: GuestDefinition;
  readonly pid: number;
  readonly identity: string;
  readonly logPath: string;
  readonly qmp: QmpClient | undefined;
  readonly exited: Promise<unknown>;
  /** Set where a program of its own holds the monitor. */
  readonly keeperPath?: string | undefined;
  readonly keeper?: Keeper | undefined;
}

/** Started, and not told to begin. */
interface Keeper {
  readonly process: KeeperProcess;
  /** Where it will have the monitor. */
  readonly path: string;
}

export class GuestProcess {
  readonly definition: GuestDefinition;
  readonly pid: number;
  /** Tells its process from a later one of the same number. */
  readonly identity: string;
  readonly logPath: string;
  private client: QmpClient | undefined;
  /** Where the monitor is: at QEMU, or at who keeps it. */
  private monitorPath: string;
  /** Until it is told to begin, or dismissed: then it may be another QEMU's. */
  private keeper: Keeper | undefined;
  private readonly exited: Promise<unknown>;

  private constructor(parts: Parts) {
    this.definition = parts.definition;
    this.pid = parts.pid;
    this.identity = parts.identity;
    this.logPath = parts.logPath;
    this.client = parts.qmp;
    this.monitorPath = parts.keeperPath ?? parts.definition.qmp;
    this.keeper = parts.keeper;
    this.exited = parts.exited;
  }

  /** @throws MigrationFault `qmp-disconnected` of an adopted QEMU that does not answer */
  get qmp(): QmpClient {
    if (this.client !== undefined) return this.client;
    throw new MigrationFault("qmp-disconnected", `The QEMU of ${this.definition.name} does not answer`);
  }

  /** @throws MigrationFault `qemu-start` with the last of QEMU's own words */
  static async start(definition: GuestDefinition, options: StartOptions): Promise<GuestProcess> {
    await mkdir(options.runtimeDirectory, { recursive: true });
    const logPath = qemuLogPath(definition.name, options.runtimeDirectory);
    const [program, ...args] = inOwnUnit([...definition.command, ...WAITING_ARGUMENTS], definition.name);
    // a socket of an earlier life of this guest would answer with a refusal, or worse, be somebody else's
    await rm(definition.qmp, { force: true });
    const log = await open(logPath, "w");
    const child = spawn(program, args, {
      detached: true,
      stdio: ["ignore", log.fd, log.fd],
    });
    const { keeperPath } = options;
    const keeper = keeperPath === undefined ? undefined : { process: KeeperProcess.take(), path: keeperPath };
    const exited = Promise.race([once(child, "exit"), once(child, "error")]);
    exited.catch(() => undefined);
    await log.close();
    child.unref();
    const failure = exited.then(async () => {
      const said = (await readFile(logPath, "utf8").catch(() => "")).slice(-LOG_TAIL_BYTES).trim();
      throw new MigrationFault(
        "qemu-start",
        `The destination's QEMU for ${definition.name} ended at its start: ${said || definition.command[0]}`,
        {
          advice: "Try the guest definition's command by hand on the destination",
        },
      );
    });
    failure.catch(() => undefined);
    const pid = child.pid ?? 0;
    try {
      const qmp = await Promise.race([connectWhenReady(definition.qmp, options), failure]);
      const identity = (await identify(pid)) ?? "";
      void GuestUnits.current?.check(pid, definition.name);
      return new GuestProcess({ definition, qmp, pid, identity, logPath, exited, keeper });
    } catch (thrown) {
      keeper?.process.dismiss();
      if (pid > 0) kill(pid);
      await exited.catch(() => undefined);
      for (const left of [definition.qmp, logPath]) await rm(left, { force: true });
      throw MigrationFault.from(thrown, "qemu-start");
    }
  }

  /**
   * The QEMU that an earlier life of this agent started, if its process still is there.
   * @param identity as it was journalled
   */
  static async adopt(
    definition: GuestDefinition,
    { pid, identity }: { readonly pid: number; readonly identity: string },
    options: {
      readonly runtimeDirectory: string;
      readonly timeoutMs: number;
      readonly keeperPath?: string | undefined;
    },
  ): Promise<GuestProcess | undefined> {
    const isThere = async (): Promise<boolean> => (await identify(pid)) === identity;
    if (!(await isThere())) return undefined;
    const ended = async (): Promise<void> => {
      while (await isThere()) await delay(LOOK_MS, undefined, { ref: false });
    };
    const { timeoutMs, keeperPath } = options;
    const qmp = await QmpClient.connect(keeperPath ?? definition.qmp, { timeoutMs }).catch(() => undefined);
    const logPath = qemuLogPath(definition.name, options.runtimeDirectory);
    return new GuestProcess({ definition, pid, identity, logPath, qmp, exited: ended(), keeperPath });
  }

  /**
   * Its monitor, connected to again when it was lost.
   * @returns undefined when the QEMU has ended
   * @throws MigrationFault when it does not answer
   */
  async monitor(): Promise<QmpClient | undefined> {
    if (await this.hasEnded()) return undefined;
    if (this.client?.isOpen) return this.client;
    this.client = await QmpClient.connect(this.monitorPath);
    return this.client;
  }

  /** From now on a program of its own holds the monitor, and outlives this agent; it was started with QEMU. */
  async keepMonitor(options: Pick<StartOptions, "timeoutMs" | "signal">): Promise<void> {
    const { keeper } = this;
    if (keeper === undefined) throw new TypeError("this QEMU was started without a keeper");
    this.keeper = undefined;
    this.client?.close();
    keeper.process.begin(this.definition.qmp, keeper.path);
    this.monitorPath = keeper.path;
    this.client = await connectWhenReady(keeper.path, options);
  }

  /** The monitor stays this agent's. */
  dismissKeeper(): void {
    this.keeper?.process.dismiss();
    this.keeper = undefined;
  }

  async hasEnded(): Promise<boolean> {
    return (await identify(this.pid)) !== this.identity;
  }

  /** The end of QEMU's own output: why it failed, when it did. */
  async lastWords(): Promise<string> {
    return (await readFile(this.logPath, "utf8").catch(() => "")).slice(-LOG_TAIL_BYTES).trim();
  }

  /** Ends the QEMU and removes what it leaves. */
  async discard(): Promise<void> {
    this.dismissKeeper();
    this.client?.execute("quit", undefined, { timeoutMs: QUITS_WITHIN_MS }).catch(() => undefined);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(
        () => {
          kill(this.pid);
          resolve();
        },
        this.client === undefined ? 0 : QUITS_WITHIN_MS,
      );
    });
    await Promise.race([this.exited.catch(() => undefined), late]);
    clearTimeout(timer);
    await this.exited.catch(() => undefined);
    this.client?.close();
    await rm(this.definition.qmp, { force: true });
    await rm(this.logPath, { force: true });
  }

  /** The guest is on its own from here; its monitor is free for others. */
  letGo(): void {
    this.client?.close();
    if (this.monitorPath === this.definition.qmp) return;
    const keeper = connect(this.monitorPath, () => keeper.end(`${JSON.stringify({ keeper: "quit" })}\n`));
    keeper.on("error", () => undefined);
  }
}

async function connectWhenReady(path: string, options: Pick<StartOptions, "timeoutMs" | "signal">): Promise<QmpClient> {
  const deadline = performance.now() + options.timeoutMs;
  while (true) {
    try {
      return await QmpClient.connect(path, { timeoutMs: options.timeoutMs, signal: options.signal });
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
