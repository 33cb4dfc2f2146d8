/**
 * Two hosts for tests and the demo: a folder each, a network between them, guests and programs on them, and nothing of it
 * left afterwards. Whatever a test starts here, or what that starts in turn, is known by the rig's folder: it is in
 * the environment of each.
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
  /** Where the consoles of guests are written. */
  readonly serialDirectory: string;
  /** Where the sockets of a guest are. */
  readonly guestDirectory: (name: string) => string;
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
  /** Both hosts are to have systemd as process 1, from bootHosts() on. @default false */
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
  /** Do both hosts have systemd, once they are booted? */
  readonly hasUnits: boolean;
  #closed = false;

  /** Builds the guest image too, if need be. @throws Error when there is no kernel for test guests */
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

  /** What marks a program as the rig's; for those that are started by other means than spawn(). */
  get environment(): Readonly<Record<string, string>> {
    return { [MARK]: this.folder };
  }

  /** Boots the systemd of both hosts, where they are to have one. What is mounted later in their directories it misses. */
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

  /** The systemd of a host and its units; undefined where a host has none. */
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

  /** Starts QEMU on a host, with further arguments such as -incoming. It runs; its monitor may not listen yet. */
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

  /** Runs what has a unit of the host started, and stands for the unit's process. */
  spawnFor(host: RigHost, name: string, { command, find }: UnitStart, graceMs?: number): Promise<RigProcess> {
    return this.spawn(host, name, command, { standsFor: find, ...(graceMs === undefined ? {} : { graceMs }) });
  }

  /** The guest's console on a host, followed from the first call on, also before its QEMU is there. */
  serial(host: RigHost, name: string): SerialLog {
    const path = join(host.serialDirectory, guestFiles(name).serial);
    const known = this.#serials.get(path);
    if (known !== undefined) return known;
    const log = new SerialLog(path);
    // written by the user of the guest
    if (this.hasUnits) chmodSync(path, 0o666);
    this.#serials.set(path, log);
    return log;
  }

  /**
   * A client of the guest's second monitor on a host, which the agents do not know of. Waits for a QEMU that is not
   * there yet. Close it before asking for another: QEMU greets one client at a time.
   */
  async observe(host: RigHost, name: string, { timeoutMs = QMP_WAIT_MS } = {}): Promise<QmpClient> {
    const path = join(host.guestDirectory(name), guestFiles(name).observer);
    const monitor = await eventually(() => connectIfThere(path, timeoutMs), { timeoutMs, what: `QEMU at ${path}` });
    this.#monitors.add(monitor);
    void monitor.closed.then(() => this.#monitors.delete(monitor));
    return monitor;
  }

  /** All programs of the rig that run now: those started here, and those that they started. */
  processes(): readonly FoundProcess[] {
    const isOurs = ({ pid, command, environment }: SeenProcess): boolean =>
      command.includes(this.folder) ||
      environment.includes(`${MARK}=${this.folder}`) ||
      [...this.#units.values()].some((units) => units.has(pid));
    return findProcesses(isOurs);
  }

  /** Is a process of the rig on this host? By its systemd, or by the host's directory in its command. */
  isOn(host: RigHost, { pid, command }: FoundProcess): boolean {
    return this.units(host)?.has(pid) ?? command.includes(`${host.runtimeDirectory}/`);
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
    await Promise.all([...this.#units.values()].map(({ systemd }) => systemd.close()));
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

function filesUnder(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true }).map((file) => join(folder, String(file)));
  } catch {
    return [];
  }
}
