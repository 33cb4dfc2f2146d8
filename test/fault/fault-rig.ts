/**
 * Two hosts with both agents on each and one guest between them, for one fault after the other. Agents are restarted
 * only when a fault needs other settings. A guest that was lost is brought back from a snapshot, without a boot.
 */
import { chmodSync, existsSync, mkdirSync, readdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { qemuLogPath, removeLog } from "../../shared/runtime/guest/guest-log.ts";
import { processesOf } from "../support/after-migration.ts";
import { eventually } from "../support/bounded.ts";
import { type GuestDefinitionFile, guestDefinition, guestFiles, type Workload } from "../support/guest.ts";
import { Rig, type RigGuest, type RigHost } from "../support/rig.ts";
import type { Beat } from "../support/serial.ts";
import { inGuestUnit } from "../support/units.ts";
import { canHaveDisks, HostDisk } from "./disks.ts";
import { FaultAgents } from "./fault-agents.ts";
import type { Victim } from "./faults.ts";
import { GuestWatch } from "./guest-watch.ts";
import { killAll } from "./processes.ts";

const NAME = "subject";
const BOOT = { timeoutMs: 60_000 };
const SNAPSHOT_MS = 30_000;
export const FULL_RATE = 1e9;
const MEMORY_MIB = 256;
const WORKLOAD: Workload = { regionMiB: 16, fillMiB: 48, rate: 20e6 };

export interface FaultRigOptions {
  readonly workload?: Workload;
  /** True when agents and guests are to run in the units of systemd/. @default false */
  readonly units?: boolean;
}

export class FaultRig extends FaultAgents {
  readonly name: string = NAME;
  readonly watch: GuestWatch;
  readonly definition: GuestDefinitionFile;
  /** The host where the guest is, or was when it was lost. */
  at: RigHost;
  /** How many guests were brought back from the snapshot. */
  revived = 0;
  /** How many beats and corruptions of earlier lives of the guest each host had seen when this life began. */
  readonly #lifeBegan = new Map<RigHost, { beats: number; corruptions: number }>();
  /** The disk of each host's journals; empty where disks cannot be mounted. */
  readonly #disks = new Map<RigHost, HostDisk>();

  static async open({ workload = WORKLOAD, units = false }: FaultRigOptions = {}): Promise<FaultRig> {
    const rig = await Rig.open({ bitsPerSecond: FULL_RATE, units });
    const faultRig = new FaultRig(rig, guestDefinition({ name: NAME, memoryMiB: MEMORY_MIB, workload }));
    try {
      await faultRig.#mountDisks();
      await rig.bootHosts();
      await faultRig.#boot();
      return faultRig;
    } catch (thrown) {
      await faultRig.#closeAll();
      throw thrown;
    }
  }

  private constructor(rig: Rig, definition: GuestDefinitionFile) {
    super(rig);
    this.definition = rig.hasUnits ? inGuestUnit(definition) : definition;
    this.at = rig.a;
    rig.writeDefinition(this.definition);
    this.watch = new GuestWatch(rig, NAME);
  }

  /** The process of a fault's victim; undefined when it is not there. */
  victimPid(victim: Victim, from: RigHost): number | undefined {
    const host = victim.startsWith("source") ? from : this.rig.other(from);
    if (victim.endsWith("agent")) return this.agent(host, victim === "source agent" ? "source" : "destination").pid;
    return processesOf(this.rig, host, NAME)[0]?.pid;
  }

  /** The processes of the guest's QEMUs on a host. */
  qemusOn(host: RigHost): readonly number[] {
    return processesOf(this.rig, host, NAME).map(({ pid }) => pid);
  }

  /** The processes on a host that keep a monitor of a QEMU. */
  keepersOn(host: RigHost): readonly number[] {
    return this.rig
      .processes()
      .filter((one) => /^ferry-monitor-keeper/.test(one.command) && this.rig.isOn(host, one))
      .map(({ pid }) => pid);
  }

  /** Ends a host as a power cut does: both agents, the guest's QEMU and the keeper of its monitor, at once. */
  async killHost(host: RigHost): Promise<void> {
    await killAll([...this.switchOff(host), ...this.qemusOn(host), ...this.keepersOn(host)]);
  }

  disk(host: RigHost): HostDisk {
    const disk = this.#disks.get(host);
    if (disk === undefined) throw new Error(`The journals of ${host.name} are on no disk of their own`);
    return disk;
  }

  /**
   * Removes the sockets and the log that a killed QEMU has left. No agent removes them: the next QEMU there would, and
   * an inspection before that would find them.
   */
  async tidyAfterKilledQemu(host: RigHost): Promise<void> {
    const files = guestFiles(NAME);
    const directory = host.guestDirectory(NAME);
    for (const file of [files.observer, files.qmp]) await rm(join(directory, file), { force: true });
    await removeLog(qemuLogPath(NAME, directory));
  }

  /** The beats of this life of the guest that were seen on a host. */
  beats(host: RigHost): readonly Beat[] {
    return this.rig
      .serial(host, NAME)
      .beats()
      .slice(this.#lifeBegan.get(host)?.beats ?? 0);
  }

  /**
   * The longest time between two heartbeats as they were seen, milliseconds.
   * @param sinceMs a time of this program's monotonic clock, from which on it is looked at
   */
  longestPause(sinceMs: number): number {
    const seen = [this.rig.a, this.rig.b]
      .flatMap((host) => this.beats(host).map(({ seenAtMs }) => seenAtMs))
      .filter((ms) => ms >= sinceMs)
      .sort((one, other) => one - other);
    return seen.reduce((longest, ms, index) => Math.max(longest, ms - (seen[index - 1] ?? sinceMs)), 0);
  }

  /** What this life of the guest has said of errors in its memory on a host. */
  corruptions(host: RigHost): readonly string[] {
    return this.rig
      .serial(host, NAME)
      .corruptions()
      .slice(this.#lifeBegan.get(host)?.corruptions ?? 0);
  }

  /** Forgets what was seen of the guest before. The cell that it belongs to has told what was wrong with it. */
  forgetLife(): void {
    for (const host of [this.rig.a, this.rig.b]) {
      const serial = this.rig.serial(host, NAME);
      serial.catchUp();
      this.#lifeBegan.set(host, { beats: serial.beats().length, corruptions: serial.corruptions().length });
    }
    this.watch.forget();
  }

  /** Makes the guest run at `at`: if it was lost, from the snapshot. */
  async revive(): Promise<void> {
    if (this.rig.qemus().length > 0) return;
    this.revived += 1;
    await this.tidyAfterKilledQemu(this.at);
    await this.#restore();
  }

  /**
   * Makes everything as at the beginning, whatever has become of it: a guest from the snapshot on host a, empty
   * journals, no agents, and a whole link.
   */
  async reset(): Promise<void> {
    for (const disk of this.#disks.values()) await disk.mend();
    await this.killAgents();
    await killAll([this.rig.a, this.rig.b].flatMap((host) => [...this.qemusOn(host), ...this.keepersOn(host)]));
    for (const host of [this.rig.a, this.rig.b]) {
      for (const directory of new Set([host.runtimeDirectory, host.guestDirectory(NAME)])) await emptied(directory);
      for (const kind of ["source", "destination"])
        await rm(join(host.stateDirectory, kind), { recursive: true, force: true });
    }
    await this.mendLink();
    this.at = this.rig.a;
    this.watch.forget();
    await this.#restore();
  }

  /**
   * Starts the same guest on the other host too, which must never happen. For the tests of the inspection that finds
   * it.
   */
  async startTwin(): Promise<void> {
    await this.#startFromSnapshot(this.rig.other(this.at));
  }

  /**
   * Starts the guest from the snapshot, as a supervisor would. Such a guest is another life, and knows nothing of the
   * one before.
   */
  async startAnew(host: RigHost): Promise<void> {
    await this.#startFromSnapshot(host);
  }

  async mendLink(): Promise<void> {
    if (this.rig.network.kind === "loopback") return;
    await this.rig.network.setConnected(true);
    for (const end of ["a", "b"] as const) await this.rig.network.setSending(end, true);
    await this.rig.network.setRate(FULL_RATE);
  }

  async close(): Promise<void> {
    await this.watch.close();
    await this.#closeAll();
    await this.rig.assertNothingLeft();
  }

  /**
   * Ends everything in this order, since frozen disks hold every program that writes to them, and mounted disks cannot
   * be removed.
   */
  async #closeAll(): Promise<void> {
    for (const disk of this.#disks.values()) await disk.mend();
    await this.killAgents();
    for (const disk of this.#disks.values()) disk.close();
    await this.rig.close();
  }

  async #mountDisks(): Promise<void> {
    if (!canHaveDisks()) return;
    for (const host of [this.rig.a, this.rig.b]) this.#disks.set(host, await HostDisk.mount(host, this.rig.folder));
  }

  async #boot(): Promise<void> {
    const guest = await this.rig.startGuest(this.rig.a, this.definition);
    await guest.serial.waitForBeats(5, BOOT);
    // this is the monitor of the agents, since the watch has the other one
    const monitor = await QmpClient.connect(join(this.at.guestDirectory(NAME), guestFiles(NAME).qmp));
    // QEMU writes at full speed, and may complete with whatever is left, since the guest only has to get into the file
    await monitor.execute("migrate-set-capabilities", { capabilities: [{ capability: "events", state: true }] });
    await monitor.execute("migrate-set-parameters", { "max-bandwidth": 0, "downtime-limit": 2000 });
    const saved = monitor.waitFor("MIGRATION", ({ data }) => data.status === "completed", { timeoutMs: SNAPSHOT_MS });
    mkdirSync(this.rig.sharedDirectory, { recursive: true });
    await monitor.execute("migrate", { uri: this.#snapshotUri(this.rig.a) });
    await saved;
    // the file belongs to the user of the guest that was stopped, and must be readable for the user of the next one
    chmodSync(this.#snapshot, 0o644);
    monitor.close();
    await guest.process.stop();
    await this.tidyAfterKilledQemu(this.rig.a);
    await this.#restore();
  }

  get #snapshot(): string {
    return join(this.rig.sharedDirectory, "snapshot");
  }

  /**
   * The snapshot as QEMU's migration names it. QEMU itself reads and writes the file, since a guest in its unit may
   * start no program.
   */
  #snapshotUri(host: RigHost): string {
    const [path] = this.rig.units(host)?.seenHere([this.#snapshot]) ?? [this.#snapshot];
    return `file:${path}`;
  }

  async #restore(): Promise<void> {
    this.forgetLife();
    const guest = await this.#startFromSnapshot(this.at);
    await guest.serial.waitForBeats(2, BOOT);
    const runs = async (): Promise<true | undefined> =>
      (await this.watch.status(this.at)) === "running" ? true : undefined;
    await eventually(runs, { ...BOOT, what: "the guest to run again from its snapshot" });
  }

  #startFromSnapshot(host: RigHost): Promise<RigGuest> {
    return this.rig.startGuest(host, this.definition, ["-incoming", this.#snapshotUri(host)]);
  }
}

/** Removes what is in a directory, except the guests' consoles, which are being followed. */
async function emptied(directory: string): Promise<void> {
  if (!existsSync(directory)) return;
  for (const file of readdirSync(directory))
    if (!file.endsWith(".serial")) await rm(join(directory, file), { recursive: true, force: true });
}
