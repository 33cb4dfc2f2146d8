/**
 * Two hosts for tests and the demo: a folder for each, a network between them, and guests and programs on them. Nothing
 * of it is left afterwards. Every program that a test starts here, and every program that such a program starts, has
 * the rig's folder in its environment and is found by that.
 */
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MigrationFault } from "../../shared/fault.ts";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { eventually } from "./bounded.ts";
import { type GuestDefinitionFile, guestFiles, prepareGuestImage } from "./guest.ts";
import { canMakeNamespaces, loopbackNetwork, namespaceNetwork, type TestNetwork } from "./network.ts";
import { hostEnvironment } from "./other-qemu.ts";
import { type ProcessOptions, RigProcess } from "./process.ts";
import { type FoundProcess, findProcesses, type SeenProcess } from "./running-processes.ts";
import { SerialLog } from "./serial.ts";
import { atTeardown } from "./teardown.ts";
import { type UnitStart, UnitsHost } from "./units.ts";

/** The variable that has the rig's folder in the environment of its programs. */
const MARK = "TEST_RIG_FOLDER";
const QMP_WAIT_MS = 20_000;

export interface RigHost {
  readonly name: "a" | "b";
  /** The address at which the other host reaches this one. */
  readonly address: string;
  /** The words with which a command line begins, so that it runs on this host. */
  readonly prefix: readonly string[];
  /** The directory of sockets and serial logs: `{runtime}` of the guest definitions. */
  readonly runtimeDirectory: string;
  readonly stateDirectory: string;
  readonly guestsDirectory: string;
  /** The directory to which the consoles of guests are written. */
  readonly serialDirectory: string;
  /** The directory of a guest's sockets. */
  readonly guestDirectory: (name: string) => string;
  /** The environment of the programs on this host, in addition to the test's own. */
  readonly environment: Readonly<Record<string, string>>;
}

export interface RigGuest {
  readonly name: string;
  readonly host: RigHost;
  readonly process: RigProcess;
  readonly serial: SerialLog;
}

export interface RigOptions {
  /** The kind of the network. @default namespaces where they can be made, else the loopback */
  readonly network?: "namespaces" | "loopback";
  /** The rate of the link. Infinity is no shaping. @default 1e9 */
  readonly bitsPerSecond?: number;
  /** The round trip of the link between namespaces, milliseconds. @default 0: as quick as the link is */
  readonly roundTripMs?: number;
  /** True if both hosts are to have systemd as process 1, from bootHosts() on. @default false */
  readonly units?: boolean;
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
  readonly #units = new Map<RigHost, UnitsHost>();
  /** True if both hosts have systemd once they are booted. */
  readonly hasUnits: boolean;
  #closed = false;

  /** Opens a rig, and builds the guest image if need be. @throws Error when there is no kernel for test guests */
  static async open(options: RigOptions = {}): Promise<Rig> {
    await prepareGuestImage();
    const kind = options.network ?? (canMakeNamespaces() ? "namespaces" : "loopback");
    const { bitsPerSecond = 1e9, roundTripMs = 0 } = options;
    const network = kind === "loopback" ? loopbackNetwork() : await namespaceNetwork({ bitsPerSecond, roundTripMs });
    return new Rig(network, options.units ?? false);
  }

  private constructor(network: TestNetwork, units: boolean) {
    this.network = network;
    this.hasUnits = units;
    this.folder = mkdtempSync(join(tmpdir(), "ferry-rig-"));
    this.a = this.#makeHost("a");
    this.b = this.#makeHost("b");
    this.#forget = atTeardown(() => {
      this.#killAll();
      rmSync(this.folder, { recursive: true, force: true });
    });
  }

  /** The environment that marks a program as the rig's, for programs that are started by other means than spawn(). */
  get environment(): Readonly<Record<string, string>> {
    return { [MARK]: this.folder };
  }

  /**
   * Boots the systemd of both hosts, if they are to have one. Its units do not see what is mounted later in the hosts'
   * directories.
   */
  async bootHosts(): Promise<void> {
    if (!this.hasUnits) return;
    for (const host of [this.a, this.b]) {
      const units = await UnitsHost.boot(host, this.sharedDirectory);
      this.#units.set(host, units);
      const guestDirectory = (name: string): string => units.guestDirectory(name);
      Object.assign(host, { prefix: units.prefix, guestDirectory });
    }
  }

  /** A directory that the programs of both hosts may use. */
  get sharedDirectory(): string {
    return join(this.folder, "shared");
  }

  /** The systemd of a host and its units; undefined if the host has none. */
  units(host: RigHost): UnitsHost | undefined {
    return this.#units.get(host);
  }

  other(host: RigHost): RigHost {
    return host === this.a ? this.b : this.a;
  }

  /** Puts the definition where the agents of both hosts look for it. */
  writeDefinition(definition: GuestDefinitionFile): void {
    for (const host of [this.a, this.b])
      writeFileSync(join(host.guestsDirectory, `${definition.name}.json`), JSON.stringify(definition, null, 2));
  }

  /**
   * Starts a guest's QEMU on a host, with further arguments such as -incoming. QEMU runs when this returns, but its
   * monitor may not listen yet.
   */
  async startGuest(host: RigHost, definition: GuestDefinitionFile, extra: readonly string[] = []): Promise<RigGuest> {
    const serial = this.serial(host, definition.name);
    const name = `QEMU of ${definition.name} on ${host.name}`;
    const units = this.units(host);
    const qemu =
      units === undefined
        ? await this.spawn(host, name, [
            ...definition.command.map((part) => part.replaceAll("{runtime}", host.runtimeDirectory)),
            ...extra,
          ])
        : await this.spawnFor(host, name, units.prepareGuest(definition, extra));
    return { name: definition.name, host, process: qemu, serial };
  }

  /** Starts any program on a host, such as an agent. */
  async spawn(
    host: RigHost,
    name: string,
    command: readonly string[],
    { environment = {}, ...promised }: Pick<ProcessOptions, "environment" | "graceMs" | "standsFor"> = {},
  ): Promise<RigProcess> {
    const seen = this.units(host)?.seenHere(command) ?? command;
    const started = await RigProcess.start({
      name,
      command: [...host.prefix, ...seen],
      environment: { ...host.environment, ...environment, [MARK]: this.folder },
      folder: this.folder,
      ...promised,
    });
    this.#processes.add(started);
    void started.ended.then(() => this.#processes.delete(started));
    return started;
  }

  /** Runs a command that has systemd start a unit of the host. @returns a program that stands for the unit's process */
  spawnFor(host: RigHost, name: string, { command, find }: UnitStart, graceMs?: number): Promise<RigProcess> {
    return this.spawn(host, name, command, { standsFor: find, ...(graceMs === undefined ? {} : { graceMs }) });
  }

  /**
   * The guest's console on a host. It is followed from the first call on, also if the guest's QEMU is not there yet.
   */
  serial(host: RigHost, name: string): SerialLog {
    const path = join(host.serialDirectory, guestFiles(name).serial);
    const known = this.#serials.get(path);
    if (known !== undefined) return known;
    const log = new SerialLog(path);
    // the guest's user writes to the file
    if (this.hasUnits) chmodSync(path, 0o666);
    this.#serials.set(path, log);
    return log;
  }

  /**
   * Connects to the guest's second monitor on a host, of which the agents do not know. It waits for a QEMU that is not
   * there yet. Close the client before you ask for another, since QEMU greets one client at a time.
   */
  async observe(host: RigHost, name: string, { timeoutMs = QMP_WAIT_MS } = {}): Promise<QmpClient> {
    const path = join(host.guestDirectory(name), guestFiles(name).observer);
    const monitor = await eventually(() => connectIfThere(path, timeoutMs), { timeoutMs, what: `QEMU at ${path}` });
    this.#monitors.add(monitor);
    void monitor.closed.then(() => this.#monitors.delete(monitor));
    return monitor;
  }

  /** All programs of the rig that run now: those that were started here, and those that they have started. */
  processes(): readonly FoundProcess[] {
    const isOurs = ({ pid, command, environment }: SeenProcess): boolean =>
      command.includes(this.folder) ||
      environment.includes(`${MARK}=${this.folder}`) ||
      [...this.#units.values()].some((units) => units.has(pid));
    return findProcesses(isOurs);
  }

  /** True if a process of the rig is on this host, by the host's systemd or by the host's directory in its command. */
  isOn(host: RigHost, { pid, command }: FoundProcess): boolean {
    return this.units(host)?.has(pid) ?? command.includes(`${host.runtimeDirectory}/`);
  }

  /** The QEMUs among the rig's programs. */
  qemus(): readonly FoundProcess[] {
    return this.processes().filter(({ command }) => /^\S*qemu-system-/.test(command));
  }

  /**
   * Ends every program, and removes the network and the folder. Each program is asked to end first, and is killed after
   * the time that it was promised. close() may be called twice.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const log of this.#serials.values()) log.close();
    for (const monitor of this.#monitors) monitor.close();
    await Promise.all([...this.#processes].map((one) => one.stop()));
    await Promise.all([...this.#units.values()].map(({ systemd }) => systemd.close()));
    // programs that an agent has started outlive the agent, as they should
    this.#killAll();
    const gone = () => (this.processes().length === 0 ? true : undefined);
    await eventually(gone, { timeoutMs: 20_000, what: "the end of the rig's processes" });
    await this.network.close();
    rmSync(this.folder, { recursive: true, force: true });
    this.#forget();
  }

  /** To be called after close(). @throws Error that lists every process, namespace and file that is still there */
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
    const serialDirectory = this.hasUnits ? join(this.folder, name, "serial") : runtimeDirectory;
    if (this.hasUnits) mkdirSync(serialDirectory);
    const guestDirectory = (): string => runtimeDirectory;
    const directories = { runtimeDirectory, stateDirectory, guestsDirectory, serialDirectory, guestDirectory };
    return { name, address, prefix, ...directories, environment };
  }

  #killAll(): void {
    for (const { pid } of this.processes())
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // the process has ended by itself meanwhile
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

function filesUnder(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true }).map((file) => join(folder, String(file)));
  } catch {
    return [];
  }
}
