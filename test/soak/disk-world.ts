/**
 * The world of the soak: two hosts with their agents, a guest that writes to a disk, and what an operator does to it.
 */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { ImageInfo } from "../../shared/qemu/qmp/qmp-types.ts";
import { GuestWatch } from "../fault/guest-watch.ts";
import type { Inspected } from "../fault/inspect.ts";
import { type HostAgents, startAgents } from "../support/agents.ts";
import { beginMerge, endMerge, takeSnapshot, tell } from "../support/block-jobs.ts";
import { eventually } from "../support/bounded.ts";
import { BLOCK_BYTES, blockDisk, makeDiskImage } from "../support/disk-image.ts";
import { type GuestDefinitionFile, guestDefinition } from "../support/guest.ts";
import { ImageLocker } from "../support/image-locker.ts";
import type { RigProcess } from "../support/process.ts";
import { Rig, type RigHost } from "../support/rig.ts";
import type { Beat, DiskBeat } from "../support/serial.ts";
import { Asker } from "./asker.ts";

const NAME = "diskwriter";
const MEMORY_MIB = 256;
const DISK_MIB = 4;
export const BLOCKS = (DISK_MIB * 2 ** 20) / BLOCK_BYTES;
const MEDIUM_BYTES = 1 << 20;
const MEDIA = ["one.iso", "two.iso", "three.iso"] as const;
const BOOT = { timeoutMs: 60_000 };
const HAS_MONITOR = { timeoutMs: 30_000 };

export class DiskWorld implements Inspected {
  readonly name: string = NAME;
  readonly rig: Rig;
  readonly watch: GuestWatch;
  readonly asker: Asker;
  /** Where the guest runs. */
  at: RigHost;
  readonly #agents = new Map<RigHost, HostAgents>();
  readonly #lockers = new Map<RigHost, ImageLocker>();
  /** The QEMU that this program has started; each later one was started by an agent. */
  #first: RigProcess | undefined;
  #snapshots = 0;
  /** The medium that this program has put into the drive; undefined when the drive is empty. */
  #mediumNow: string | undefined;

  static async open(): Promise<DiskWorld> {
    const world = new DiskWorld(await Rig.open());
    try {
      await world.#boot();
      return world;
    } catch (thrown) {
      await world.#end();
      throw thrown;
    }
  }

  private constructor(rig: Rig) {
    this.rig = rig;
    this.at = rig.a;
    this.watch = new GuestWatch(rig, NAME, (host, event) => this.asker.hear(host, event));
    this.asker = new Asker([rig.a, rig.b], (host) => this.watch.monitor(host));
  }

  /** The folder of the images, which both hosts have, as hosts of a cluster share a file system. */
  get folder(): string {
    return join(this.rig.folder, "disks");
  }

  get image(): string {
    return join(this.folder, "d.raw");
  }

  agents(host: RigHost): HostAgents {
    return this.#agents.get(host)!;
  }

  locker(host: RigHost): ImageLocker {
    return this.#lockers.get(host)!;
  }

  beats(host: RigHost): readonly Beat[] {
    return this.rig.serial(host, NAME).beats();
  }

  corruptions(host: RigHost): readonly string[] {
    return this.rig.serial(host, NAME).corruptions();
  }

  deadAgents(): readonly string[] {
    const all = [...this.#agents.values()].flatMap(({ source, destination }) => [source, destination]);
    return all.filter(({ running }) => !running).map((one) => `${one.name} has ended: ${one.output().slice(-300)}`);
  }

  isDown(): boolean {
    return false;
  }

  /** What the agents and the guest's QEMUs wrote, for a report of what went wrong. */
  logs(): string {
    const all = [...this.#agents.values()].flatMap(({ source, destination }) => [source, destination]);
    const qemus = [this.rig.a, this.rig.b].map((host) => {
      const path = join(host.runtimeDirectory, `${NAME}.qemu.log`);
      return `== QEMU on ${host.name}\n${existsSync(path) ? readFileSync(path, "utf8") : "no log"}`;
    });
    const first = this.#first;
    const started =
      first === undefined ? [] : [`== ${first.name}, ${first.end?.signal ?? "no signal"}\n${first.output()}`];
    return [...started, ...qemus, ...all.map((one) => `== ${one.name}\n${one.output()}`)].join("\n");
  }

  /** What the guest has said last of its disk, on whichever host. */
  disk(): DiskBeat {
    const last = [this.rig.a, this.rig.b].map((host) => this.rig.serial(host, NAME).lastBeat());
    const newest = last.reduce((one, other) => ((other?.beat ?? -1) > (one?.beat ?? -1) ? other : one));
    return newest?.disk ?? { written: 0, checked: 0, wrong: 0, failed: 0 };
  }

  /** A client of the QEMU that has the guest, which the agents do not know of. */
  monitor(host = this.at): Promise<QmpClient> {
    const what = `the monitor of the guest's QEMU on ${host.name}`;
    return eventually(() => this.watch.monitor(host), { ...HAS_MONITOR, what });
  }

  /** The layers of the guest's disk, topmost first. */
  async layers(): Promise<readonly ImageInfo[]> {
    const layersOf = (image: ImageInfo | undefined): readonly ImageInfo[] =>
      image === undefined ? [] : [image, ...layersOf(image["backing-image"])];
    return layersOf(await this.#inserted("d0"));
  }

  /** The medium in the guest's drive; undefined when it was ejected. */
  async medium(): Promise<string | undefined> {
    return (await this.#inserted("cd0"))?.filename;
  }

  async takeSnapshot(): Promise<void> {
    this.#snapshots += 1;
    await takeSnapshot(await this.monitor(), "d0", join(this.folder, `snapshot-${this.#snapshots}.qcow2`));
  }

  async beginMerge(): Promise<void> {
    await beginMerge(await this.monitor(), "d0");
  }

  async endMerge(): Promise<void> {
    await endMerge(await this.monitor());
  }

  /** Puts in the next medium. @returns its path */
  async changeMedium(): Promise<string> {
    const now = MEDIA.findIndex((name) => this.#mediumNow?.endsWith(name));
    const filename = join(this.folder, MEDIA[(now + 1) % MEDIA.length]!);
    await tell(await this.monitor(), "blockdev-change-medium", { id: "cd", filename, format: "raw" });
    this.#mediumNow = filename;
    return filename;
  }

  async ejectMedium(): Promise<void> {
    await tell(await this.monitor(), "eject", { id: "cd", force: true });
    this.#mediumNow = undefined;
  }

  /**
   * Does what an operator does after a snapshot or a merge: writes the layers that the guest has into its definition.
   */
  async editDefinitions(): Promise<void> {
    const [top] = await this.layers();
    if (top === undefined) throw new Error("The guest has no disk");
    this.rig.writeDefinition(this.#definition(top.filename, top.format));
  }

  /**
   * Ends the job that is under way at the guest's disk, writes the definitions, and removes the files that are no layer
   * of the disk any more.
   */
  async settle(): Promise<void> {
    const jobs = await (await this.monitor()).execute("query-block-jobs");
    if (jobs.length > 0) await this.endMerge();
    await this.editDefinitions();
    this.#mediumNow = await this.medium();
    const used = (await this.layers()).map(({ filename }) => filename);
    for (const file of readdirSync(this.folder))
      if (file.endsWith(".qcow2") && !used.includes(join(this.folder, file))) rmSync(join(this.folder, file));
  }

  /** Lists the marks that agents have left beside the images. */
  marks(): readonly string[] {
    return readdirSync(this.folder).filter((name) => name.startsWith(".ferry"));
  }

  async close(): Promise<void> {
    await this.#end();
    await this.rig.assertNothingLeft();
  }

  async #end(): Promise<void> {
    await this.asker.close();
    await this.watch.close();
    for (const locker of this.#lockers.values()) locker.close();
    await this.rig.close();
  }

  async #boot(): Promise<void> {
    const { rig } = this;
    await mkdir(this.folder);
    makeDiskImage(this.image, DISK_MIB);
    for (const name of MEDIA) writeFileSync(join(this.folder, name), Buffer.alloc(MEDIUM_BYTES));
    const definition = this.#definition(this.image, "raw");
    rig.writeDefinition(definition);
    this.#first = (await rig.startGuest(rig.a, definition)).process;
    for (const host of [rig.a, rig.b]) {
      this.#agents.set(host, await startAgents(rig, host, { destination: [`--guests-media=${this.folder}`] }));
      this.#lockers.set(host, await ImageLocker.start(rig, host));
    }
    const isAround = ({ disk }: Beat): boolean => (disk?.checked ?? 0) >= BLOCKS;
    await rig.serial(rig.a, NAME).waitForBeat(isAround, BOOT);
    await this.settle();
  }

  #definition(file: string, format: string): GuestDefinitionFile {
    const cd = ["-drive", `file=${join(this.folder, MEDIA[0])},format=raw,if=none,id=cd0,media=cdrom`];
    return guestDefinition({
      ...{ name: NAME, memoryMiB: MEMORY_MIB },
      workload: { regionMiB: 16, fillMiB: 32, rate: 20e6, diskMiB: DISK_MIB },
      extra: [...blockDisk(file, format), ...cd, "-device", "ide-cd,drive=cd0,id=cd"],
    });
  }

  async #inserted(device: string): Promise<ImageInfo | undefined> {
    const blocks = await (await this.monitor()).execute("query-block");
    return blocks.find((one) => one.device === device)?.inserted?.image;
  }
}
