/**
 * A busy guest that crosses between two hosts, by Ferry or by QEMU alone. The QEMUs of the hosts may be of different
 * versions. A crossing ends when the guest has walked once through the memory that it writes to, and has counted the
 * words that it found wrong.
 */
import { MigrationFault } from "../../shared/fault.ts";
import { STRATEGIES } from "../../shared/protocol/messages.ts";
import type { MigrationResult } from "../../shared/protocol/report.ts";
import { type HostAgents, startAgents } from "./agents.ts";
import { migrate } from "./ferry-json.ts";
import { foundGuest } from "./found-guest.ts";
import { type GuestDefinitionFile, guestDefinition, type Workload } from "./guest.ts";
import { migrateWithQemu } from "./qemu-baseline.ts";
import { postcopyWithQemu } from "./qemu-postcopy.ts";
import { Rig, type RigGuest, type RigHost } from "./rig.ts";

/**
 * Ferry's strategies, and QEMU alone: `qemu` is QEMU's precopy, and `qemu-postcopy` is QEMU's post-copy after as much
 * precopy as with Ferry.
 */
export const MEANS = [...STRATEGIES, "qemu", "qemu-postcopy"] as const;
export type Means = (typeof MEANS)[number];

export interface Crossed {
  readonly means: Means;
  readonly from: "a" | "b";
  readonly moved: boolean;
  /** Why the guest did not move; missing where it moved. */
  readonly error?: string;
  /**
   * The codes of the reasons for which an agent refused the crossing before anything was touched; empty if none did.
   */
  readonly refusals: readonly string[];
  /** How many words the guest has found wrong since the crossing before. */
  readonly wrongWords: number;
  /** True when the agents have compared all memory too (`--verify`). */
  readonly verified: boolean;
  readonly result?: MigrationResult;
}

const NAME = "busy";
const REGION_MIB = 64;
const PAGES = (REGION_MIB << 20) / 4096;
const WORKLOAD: Workload = { regionMiB: REGION_MIB, rate: 200e6, words: 4 };
const MEMORY_MIB = 256;
const BEATS = { timeoutMs: 60_000 };
const BEATS_BEFORE = 5;
/** How long QEMU's precopy lasts before its post-copy, milliseconds: as long as Ferry's does. */
const HEAD_START_MS = 450;
const QEMU_GIVES_UP_MS = 30_000;

export class Crossing {
  readonly rig: Rig;
  private readonly definition: GuestDefinitionFile;
  private readonly agents: ReadonlyMap<RigHost, HostAgents>;
  private guest: RigGuest;
  private wrongWords = 0;

  /** Starts a guest at host a, and the agents of both hosts. @param workload what differs from the usual workload */
  static async open(bitsPerSecond: number, workload: Workload = {}): Promise<Crossing> {
    const rig = await Rig.open({ bitsPerSecond });
    try {
      const definition = guestDefinition({ name: NAME, memoryMiB: MEMORY_MIB, workload: { ...WORKLOAD, ...workload } });
      rig.writeDefinition(definition);
      const guest = await rig.startGuest(rig.a, definition);
      const [a, b] = await Promise.all([startAgents(rig, rig.a), startAgents(rig, rig.b)]);
      await guest.serial.waitForBeats(1, BEATS);
      return new Crossing(rig, definition, [a, b], guest);
    } catch (thrown) {
      await rig.close();
      throw thrown;
    }
  }

  private constructor(rig: Rig, definition: GuestDefinitionFile, agents: readonly HostAgents[], guest: RigGuest) {
    this.rig = rig;
    this.definition = definition;
    this.agents = new Map(agents.map((one) => [one.host, one]));
    this.guest = guest;
  }

  /** The host at which the guest is. */
  get host(): "a" | "b" {
    return this.guest.host.name;
  }

  /**
   * Moves the guest to the other host. After a guest was not moved, or has found words wrong, open another crossing.
   */
  async cross(means: Means): Promise<Crossed> {
    const from = this.host;
    try {
      await this.guest.serial.waitForBeats(BEATS_BEFORE, BEATS);
      const result = await this.move(means);
      const wrongWords = await this.check();
      const verified = result?.verified === true;
      const moved = { means, from, moved: true, refusals: [], wrongWords, verified };
      return result === undefined ? moved : { ...moved, result };
    } catch (thrown) {
      const { message, refusals } = MigrationFault.from(thrown);
      const codes = refusals.map(({ code }) => code);
      const wrongWords = this.wordsSince();
      return { means, from, moved: false, error: message, refusals: codes, wrongWords, verified: false };
    }
  }

  /** The guest's consoles and the agents' logs, by the name of a file for each. */
  evidence(): ReadonlyMap<string, string> {
    const all = new Map<string, string>();
    for (const host of [this.rig.a, this.rig.b]) {
      all.set(`${host.name}.serial`, this.rig.serial(host, NAME).lines().join("\n"));
      const agents = this.agents.get(host);
      for (const kind of ["source", "destination"] as const)
        all.set(`${host.name}.${kind}.log`, agents?.[kind].output() ?? "");
    }
    return all;
  }

  close(): Promise<void> {
    return this.rig.close();
  }

  /** @returns Ferry's result; undefined for QEMU alone. @throws Error or MigrationFault when the guest did not move */
  private async move(means: Means): Promise<MigrationResult | undefined> {
    const { rig, guest, definition } = this;
    if (means === "qemu") {
      const options = { rig, guest, definition, method: "plain", giveUpAfterMs: QEMU_GIVES_UP_MS } as const;
      const moved = await migrateWithQemu(options);
      if (!moved.completed) throw new Error(`QEMU did not come to an end within ${QEMU_GIVES_UP_MS / 1000} s`);
      this.guest = moved.guest;
      return undefined;
    }
    if (means === "qemu-postcopy") {
      const options = { rig, guest, definition, preempt: false, passes: 0, headStartMs: HEAD_START_MS };
      this.guest = (await postcopyWithQemu(options)).guest;
      return undefined;
    }
    const to = rig.other(guest.host);
    const [source, destination] = [this.agents.get(guest.host), this.agents.get(to)];
    if (source === undefined || destination === undefined) throw new RangeError("There are no agents on a host");
    const verify = means === "precopy" || means === "stop-and-copy";
    const options = ["--strategy", means, ...(verify ? ["--verify"] : [])];
    const { answer } = await migrate(rig, source, destination, NAME, options);
    if (answer.result === undefined)
      throw new MigrationFault("refused", answer.error?.message ?? "The guest was not moved", {
        refusals: answer.error?.refusals ?? [],
      });
    this.guest = await foundGuest(rig, to, NAME);
    return answer.result;
  }

  /**
   * Waits until the guest has walked through its memory.
   * @returns how many words it has found wrong since the last call
   */
  private async check(): Promise<number> {
    const { serial } = this.guest;
    const { pages } = await serial.waitForBeats(2, BEATS);
    await serial.waitForBeat((beat) => beat.pages >= pages + PAGES + PAGES / 8, BEATS);
    return this.wordsSince();
  }

  private wordsSince(): number {
    const errors = this.guest.serial.lastBeat()?.errors ?? 0;
    const found = Math.max(0, errors - this.wrongWords);
    this.wrongWords = Math.max(this.wrongWords, errors);
    return found;
  }
}
