/**
 * Two hosts for tests and the demo: a folder each, a network between them, guests and programs on them, and nothing of it
 * left afterwards. Whatever a test starts here, or what that starts in turn, is known by the rig's folder: it is in
 * the environment of each.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MigrationFault } from "../../shared/fault.ts";
import { QmpClient } from "../../shared/qemu/qmp-client.ts";
import { eventually } from "./bounded.ts";
import { type GuestDefinitionFile, guestFiles, prepareGuestImage } from "./guest.ts";
import { canMakeNamespaces, loopbackNetwork, namespaceNetwork, type TestNetwork } from "./network.ts";
import { hostEnvironment } from "./other-qemu.ts";
import { type ProcessOptions, RigProcess } from "./process.ts";
import { SerialLog } from "./serial.ts";
import { atTeardown } from "./teardown.ts";

const MARK = "TEST_RIG_FOLDER";
const QMP_WAIT_MS = 20_000;

export interface RigHost {
  readonly name: "a" | "b";
  /** Where the other host reaches it. */
  readonly address: string;
  /** What a command line begins with to run on this host. */
  readonly prefix: readonly string[];
  /** Sockets and serial logs: `{runtime}` of the guest definitions. */
  readonly runtimeDirectory: string;
  readonly stateDirectory: string;
  readonly guestsDirectory: string;
  /** Of the programs on this host; beside the test's own. */
  readonly environment: Readonly<Record<string, string>>;
}

export interface RigGuest {
  readonly name: string;
  readonly host: RigHost;
  readonly process: RigProcess;
  readonly serial: SerialLog;
}

export interface RigOptions {
  /** Default: namespaces where they can be made, else the loopback. */
  readonly network?: "namespaces" | "loopback";
  /** Infinity is no shaping. @default 1e9 */
  readonly bitsPerSecond?: number;
  /** Of the link between namespaces, milliseconds. @default 0: as quick as it is */
  readonly roundTripMs?: number;
}

export interface FoundProcess {
  readonly pid: number;
  readonly command: string;
}

export class Rig {
  readonly folder: string;
  readonly network: TestNetwork;
  readonly a: RigHost;
  readonly b: RigHost;
  readonly #processes = new Set<RigProcess>();
  readonly #serials = new Map<string, SerialLog>();
  readonly #monitors = new Set<QmpClient>();
  readonly #forget: () => void;
  #closed = false;

  /** Builds the guest image too, if need be. @throws Error when there is no kernel for test guests */
  static async open(options: RigOptions = {}): Promise<Rig> {
    await prepareGuestImage();
    const kind = options.network ?? (canMakeNamespaces() ? "namespaces" : "loopback");
    const { bitsPerSecond = 1e9, roundTripMs = 0 } = options;
    const network = kind === "loopback" ? loopbackNetwork() : await namespaceNetwork({ bitsPerSecond, roundTripMs });
    return new Rig(network);
  }

  private constructor(network: TestNetwork) {
    this.network = network;
    this.folder = mkdtempSync(join(tmpdir(), "ferry-rig-"));
    this.a = this.#makeHost("a");
    this.b = this.#makeHost("b");
    this.#forget = atTeardown(() => {
      this.#killAll();
      rmSync(this.folder, { recursive: true, force: true });
    });
  }

  /** What marks a program as the rig's; for those that are started by other means than spawn(). */
  get environment(): Readonly<Record<string, string>> {
    return { [MARK]: this.folder };
  }

  other(host: RigHost): RigHost {
    return host === this.a ? this.b : this.a;
  }

  /** Puts the definition where the agents of both hosts look for it. */
  writeDefinition(definition: GuestDefinitionFile): void {
    for (const host of [this.a, this.b])
      writeFileSync(join(host.guestsDirectory, `${definition.name}.json`), JSON.stringify(definition, null, 2));
  }

  /** Starts QEMU on a host, with further arguments such as -incoming. It runs; its monitor may not listen yet. */
  async startGuest(host: RigHost, definition: GuestDefinitionFile, extra: readonly string[] = []): Promise<RigGuest> {
    const command = definition.command.map((part) => part.replaceAll("{runtime}", host.runtimeDirectory));
    const serial = this.serial(host, definition.name);
    const qemu = await this.spawn(host, `QEMU of ${definition.name} on ${host.name}`, [...command, ...extra]);
    return { name: definition.name, host, process: qemu, serial };
  }

  /** Starts any program on a host, such as an agent. */
  async spawn(
    host: RigHost,
    name: string,
    command: readonly string[],
    { environment = {}, ...promised }: Pick<ProcessOptions, "environment" | "graceMs"> = {},
  ): Promise<RigProcess> {
    const started = await RigProcess.start({
      name,
      command: [...host.prefix, ...command],
      environment: { ...host.environment, ...environment, [MARK]: this.folder },
      folder: this.folder,
      ...promised,
    });
    this.#processes.add(started);
    void started.ended.then(() => this.#processes.delete(started));
    return started;
  }

  /** The guest's console on a host, followed from the first call on, also before its QEMU is there. */
  serial(host: RigHost, name: string): SerialLog {
    const path = join(host.runtimeDirectory, guestFiles(name).serial);
    const known = this.#serials.get(path);
    if (known !== undefined) return known;
    const log = new SerialLog(path);
    this.#serials.set(path, log);
    return log;
  }

  /**
   * A client of the guest's second monitor on a host, which the agents do not know of. Waits for a QEMU that is not
   * there yet. Close it before asking for another: QEMU greets one client at a time.
   */
  async observe(host: RigHost, name: string, { timeoutMs = QMP_WAIT_MS } = {}): Promise<QmpClient> {
    const path = join(host.runtimeDirectory, guestFiles(name).observer);
    const monitor = await eventually(() => connectIfThere(path, timeoutMs), { timeoutMs, what: `QEMU at ${path}` });
    this.#monitors.add(monitor);
    void monitor.closed.then(() => this.#monitors.delete(monitor));
    return monitor;
  }

  /** All programs of the rig that run now: those started here, and those that they started. */
  processes(): readonly FoundProcess[] {
    return findProcesses(this.folder);
  }

  /** The QEMUs among them: after a migration there must be one. */
  qemus(): readonly FoundProcess[] {
    return this.processes().filter(({ command }) => /^\S*qemu-system-/.test(command));
  }

  /**
   * Ends every program, and removes network and folder. Each program is asked first, and forced after the time that it
   * was promised. May be called twice.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const log of this.#serials.values()) log.close();
    for (const monitor of this.#monitors) monitor.close();
    await Promise.all([...this.#processes].map((one) => one.stop()));
    // What an agent started outlives it, as it should.
    this.#killAll();
    const gone = () => (this.processes().length === 0 ? true : undefined);
    await eventually(gone, { timeoutMs: 20_000, what: "the end of the rig's processes" });
    await this.network.close();
    rmSync(this.folder, { recursive: true, force: true });
    this.#forget();
  }

  /** After close(): @throws Error that lists every process, namespace and file that is still there */
  async assertNothingLeft(): Promise<void> {
    const left = [
      ...this.processes().map(({ pid, command }) => `process ${pid}: ${command}`),
      ...(await this.network.leftovers()),
      ...filesUnder(this.folder),
    ];
    if (left.length > 0) throw new Error(`Left behind:\n${left.join("\n")}`);
  }

  #makeHost(name: "a" | "b"): RigHost {
    const { address, prefix } = this.network[name];
    const [runtimeDirectory, stateDirectory, guestsDirectory] = ["run", "state", "guests"].map((part) => {
      const folder = join(this.folder, name, part);
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      return folder;
    }) as [string, string, string];
    const environment = hostEnvironment(name, join(this.folder, name, "bin"));
    return { name, address, prefix, runtimeDirectory, stateDirectory, guestsDirectory, environment };
  }

  #killAll(): void {
    for (const { pid } of findProcesses(this.folder))
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // it ended by itself meanwhile
      }
  }
}

async function connectIfThere(path: string, timeoutMs: number): Promise<QmpClient | undefined> {
  try {
    return await QmpClient.connect(path, { timeoutMs });
  } catch (thrown) {
    if (thrown instanceof MigrationFault && thrown.code === "qmp-unreachable") return undefined;
    throw thrown;
  }
}

/** Processes with the folder in their command line or environment, without this program and those that have ended. */
function findProcesses(folder: string): FoundProcess[] {
  const found: FoundProcess[] = [];
  for (const entry of readdirSync("/proc")) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const [command, environment] = [readIfThere(`/proc/${pid}/cmdline`), readIfThere(`/proc/${pid}/environ`)];
    if (command === "" || !(command.includes(folder) || environment.includes(`${MARK}=${folder}`))) continue;
    found.push({ pid, command: command.replaceAll("\0", " ").trim() });
  }
  return found;
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

function filesUnder(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true }).map((file) => join(folder, String(file)));
  } catch {
    return [];
  }
}
