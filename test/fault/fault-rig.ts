/**
 * Two hosts with both agents on each and one guest between them, for one fault after the other. Agents are restarted only
 * when a fault needs other settings of them; a guest that was lost is brought back from a snapshot, without a boot.
 */
import { readdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { GrpcOperatorClient } from "../../shared/link/operator-client.ts";
import type { MigrationView } from "../../shared/protocol/report.ts";
import { QmpClient } from "../../shared/qemu/qmp-client.ts";
import { processesOf } from "../support/after-migration.ts";
import { agentAddress, type HostAgents, startAgent } from "../support/agents.ts";
import { eventually } from "../support/bounded.ts";
import { type GuestDefinitionFile, guestDefinition, guestFiles, type Workload } from "../support/guest.ts";
import type { RigProcess } from "../support/process.ts";
import { Rig, type RigGuest, type RigHost } from "../support/rig.ts";
import type { Beat } from "../support/serial.ts";
import type { AgentKind, Hold, Victim } from "./faults.ts";
import { GuestWatch } from "./guest-watch.ts";

const NAME = "subject";
const BOOT = { timeoutMs: 60_000 };
const SNAPSHOT_MS = 30_000;
const ASK_MS = 3000;
const CANCELS_WITHIN_MS = 60_000;
export const FULL_RATE = 1e9;
const MEMORY_MIB = 256;
const WORKLOAD: Workload = { regionMiB: 16, fillMiB: 48, rate: 20e6 };

/** The settings of one agent beside where it is: limits of the cell, and where it is to hold. */
export type AgentFlags = Readonly<Record<AgentKind, readonly string[]>>;

interface RunningAgent {
  readonly process: RigProcess;
  readonly flags: readonly string[];
  /** States at which it holds, each once. */
  readonly hold: readonly string[];
}

export class FaultRig {
  readonly rig: Rig;
  readonly name = NAME;
  readonly watch: GuestWatch;
  readonly definition: GuestDefinitionFile;
  /** Where the guest is, or was when it was lost. */
  at: RigHost;
  /** Guests that were brought back from the snapshot. */
  revived = 0;
  readonly #agents = new Map<string, RunningAgent>();
  /** Beats before these are of an earlier life of the guest. */
  readonly #lifeBegan = new Map<RigHost, { beats: number; corruptions: number }>();
  /** Whatever ran in the cell that is under way, for its log. */
  #cast: RigProcess[] = [];

  static async open(workload: Workload = WORKLOAD): Promise<FaultRig> {
    const rig = await Rig.open({ bitsPerSecond: FULL_RATE });
    try {
      const faultRig = new FaultRig(rig, guestDefinition({ name: NAME, memoryMiB: MEMORY_MIB, workload }));
      await faultRig.#boot();
      return faultRig;
    } catch (thrown) {
      await rig.close();
      throw thrown;
    }
  }

  private constructor(rig: Rig, definition: GuestDefinitionFile) {
    this.rig = rig;
    this.definition = definition;
    this.at = rig.a;
    rig.writeDefinition(definition);
    this.watch = new GuestWatch(rig, NAME);
  }

  agents(host: RigHost): HostAgents {
    const of = (kind: AgentKind): RigProcess => this.agent(host, kind);
    const [sourceAddress, destinationAddress] = [
      agentAddress(this.rig, host, "source"),
      agentAddress(this.rig, host, "destination"),
    ];
    return {
      host,
      source: of("source"),
      destination: of("destination"),
      sourceAddress,
      destinationAddress,
      ferryFlags: [],
    };
  }

  agent(host: RigHost, kind: AgentKind): RigProcess {
    const running = this.#agents.get(key(host, kind));
    if (running === undefined) throw new Error(`There is no ${kind} agent on ${host.name}`);
    return running.process;
  }

  /** All four agents run with these flags afterwards; `holds` are of the one migration from `from` to come. */
  async prepareAgents(from: RigHost, flags: AgentFlags, holds: readonly Hold[] = []): Promise<void> {
    this.#cast = [];
    const kinds = ["source", "destination"] as const;
    await Promise.all(
      [this.rig.a, this.rig.b].flatMap((host) =>
        kinds.map(async (kind) => {
          const own = holds.filter(({ side }) => side === kind && (side === "source") === (host === from));
          const hold = own.map(({ state }) => state);
          const running = this.#agents.get(key(host, kind));
          if (hold.length === 0 && running !== undefined && isFit(running, flags[kind]))
            this.#cast.push(running.process);
          else await this.#start(host, kind, flags[kind], hold);
        }),
      ),
    );
  }

  killAgent(host: RigHost, kind: AgentKind): Promise<void> {
    return this.#kill(this.agent(host, kind));
  }

  /** As systemd does when an agent has died; it does not hold again. */
  async restartAgent(host: RigHost, kind: AgentKind): Promise<void> {
    await this.#start(host, kind, this.#agents.get(key(host, kind))?.flags ?? []);
  }

  /** Agents that have ended and were not started again, with their last words: no fault of another's may do that. */
  deadAgents(): readonly string[] {
    return [...this.#agents].flatMap(([name, { process }]) =>
      process.running ? [] : [`the agent ${name} has ended by itself: ${process.output().slice(-300)}`],
    );
  }

  /** Adds a program to those whose output is kept for the cell's log. */
  casts(process: RigProcess): void {
    this.#cast.push(process);
  }

  /** What the programs of this cell wrote, for a report of what went wrong. */
  logs(): string {
    return this.#cast.map((one) => `== ${one.name} (process ${one.pid})\n${withoutProgress(one.output())}`).join("\n");
  }

  /** @returns what the source agent of a host knows; undefined when it does not answer */
  async migrations(host: RigHost): Promise<readonly MigrationView[] | undefined> {
    const client = new GrpcOperatorClient(`unix:${this.#operatorSocket(host, "source")}`, ASK_MS);
    try {
      return await client.listMigrations();
    } catch {
      return undefined;
    } finally {
      client.close();
    }
  }

  /** Returns when the source agent has heard of it: a migration that is held takes notice only later. */
  async cancel(host: RigHost, id: string): Promise<void> {
    const client = new GrpcOperatorClient(`unix:${this.#operatorSocket(host, "source")}`, CANCELS_WITHIN_MS);
    void client
      .cancel(id)
      .catch(() => undefined)
      .finally(() => client.close());
    // asked later on the same connection, and answered at once
    await client.listMigrations();
  }

  /** The process that a fault is done to; undefined when it is not there. */
  victimPid(victim: Victim, from: RigHost): number | undefined {
    const host = victim.startsWith("source") ? from : this.rig.other(from);
    if (victim.endsWith("agent")) return this.agent(host, victim === "source agent" ? "source" : "destination").pid;
    return processesOf(this.rig, host, NAME)[0]?.pid;
  }

  /** The sockets that a killed QEMU leaves are nobody's: the next QEMU there would remove them, a count would find them. */
  async tidyAfterKilledQemu(host: RigHost): Promise<void> {
    const files = guestFiles(NAME);
    for (const file of [files.observer, files.qmp]) await rm(join(host.runtimeDirectory, file), { force: true });
    await rm(join(host.runtimeDirectory, `${NAME}.qemu.log`), { force: true });
  }

  /** The beats of this life of the guest that were seen on a host. */
  beats(host: RigHost): readonly Beat[] {
    return this.rig
      .serial(host, NAME)
      .beats()
      .slice(this.#lifeBegan.get(host)?.beats ?? 0);
  }

  /** What this life of the guest said of its memory on a host. */
  corruptions(host: RigHost): readonly string[] {
    return this.rig
      .serial(host, NAME)
      .corruptions()
      .slice(this.#lifeBegan.get(host)?.corruptions ?? 0);
  }

  /** The guest runs at `at` afterwards: if it was lost, from the snapshot. */
  async revive(): Promise<void> {
    if (this.rig.qemus().length > 0) return;
    this.revived += 1;
    await this.tidyAfterKilledQemu(this.at);
    await this.#restore();
  }

  /** Whatever became of it: a guest from the snapshot on `a`, agents that know nothing, a whole link. */
  async reset(): Promise<void> {
    await Promise.all([...this.#agents.values()].map(({ process }) => this.#kill(process)));
    for (const { pid } of this.rig.qemus()) process.kill(pid, "SIGKILL");
    const gone = (): true | undefined => (this.rig.qemus().length === 0 ? true : undefined);
    await eventually(gone, { timeoutMs: 5000, what: "the end of all QEMUs" });
    for (const host of [this.rig.a, this.rig.b]) {
      // the console is being followed
      for (const file of readdirSync(host.runtimeDirectory))
        if (!file.endsWith(".serial")) await rm(join(host.runtimeDirectory, file), { recursive: true, force: true });
      await rm(host.stateDirectory, { recursive: true, force: true });
    }
    await this.mendLink();
    this.at = this.rig.a;
    this.watch.forget();
    await this.#restore();
  }

  /** What must never be: the same guest on the other host too. For the tests of what finds it. */
  async startTwin(): Promise<void> {
    await this.#startFromSnapshot(this.rig.other(this.at));
  }

  async mendLink(): Promise<void> {
    if (this.rig.network.kind === "loopback") return;
    await this.rig.network.setConnected(true);
    for (const end of ["a", "b"] as const) await this.rig.network.setSending(end, true);
    await this.rig.network.setRate(FULL_RATE);
  }

  async close(): Promise<void> {
    await this.watch.close();
    await this.rig.close();
    await this.rig.assertNothingLeft();
  }

  async #boot(): Promise<void> {
    const guest = await this.rig.startGuest(this.rig.a, this.definition);
    await guest.serial.waitForBeats(5, BOOT);
    // the agents' own monitor, since the watch has the other one
    const monitor = await QmpClient.connect(join(this.at.runtimeDirectory, guestFiles(NAME).qmp));
    // at full speed, and whatever is left at once: the guest only has to get into the file
    await monitor.execute("migrate-set-capabilities", { capabilities: [{ capability: "events", state: true }] });
    await monitor.execute("migrate-set-parameters", { "max-bandwidth": 0, "downtime-limit": 2000 });
    const saved = monitor.waitFor("MIGRATION", ({ data }) => data.status === "completed", { timeoutMs: SNAPSHOT_MS });
    await monitor.execute("migrate", { uri: `exec:cat > ${this.#snapshot}` });
    await saved;
    monitor.close();
    await guest.process.stop();
    await this.tidyAfterKilledQemu(this.rig.a);
    await this.#restore();
  }

  async #kill(agent: RigProcess): Promise<void> {
    agent.signal("SIGKILL");
    await agent.ended;
  }

  get #snapshot(): string {
    return join(this.rig.folder, "snapshot");
  }

  async #restore(): Promise<void> {
    for (const host of [this.rig.a, this.rig.b]) {
      const serial = this.rig.serial(host, NAME);
      this.#lifeBegan.set(host, { beats: serial.beats().length, corruptions: serial.corruptions().length });
    }
    const guest = await this.#startFromSnapshot(this.at);
    await guest.serial.waitForBeats(2, BOOT);
    const runs = async (): Promise<true | undefined> =>
      (await this.watch.status(this.at)) === "running" ? true : undefined;
    await eventually(runs, { ...BOOT, what: "the guest to run again from its snapshot" });
  }

  #startFromSnapshot(host: RigHost): Promise<RigGuest> {
    return this.rig.startGuest(host, this.definition, ["-incoming", `exec:cat ${this.#snapshot}`]);
  }

  #operatorSocket(host: RigHost, kind: AgentKind): string {
    return join(this.rig.folder, `${host.name}-${kind}.sock`);
  }

  async #start(host: RigHost, kind: AgentKind, flags: readonly string[], hold: readonly string[] = []): Promise<void> {
    const running = this.#agents.get(key(host, kind));
    if (running?.process.running === true) {
      // an agent that was stopped by SIGSTOP would not hear the request to end
      running.process.signal("SIGCONT");
      await running.process.stop();
    }
    const address = agentAddress(this.rig, host, kind);
    // a unix socket of the operator's reaches across the namespaces
    const listen = `--listen=${address},unix:${this.#operatorSocket(host, kind)}`;
    const holds = hold.length === 0 ? [] : [`--faults=${hold.map((state) => `hold-at=${state}`).join(",")}`];
    const process = await startAgent(this.rig, host, kind, [listen, ...flags, ...holds]);
    this.#agents.set(key(host, kind), { process, flags, hold });
    this.#cast.push(process);
  }
}

const key = (host: RigHost, kind: AgentKind): string => `${kind} on ${host.name}`;

/** An agent that has held does not hold again. */
const isFit = ({ process, flags, hold }: RunningAgent, wanted: readonly string[]): boolean =>
  process.running &&
  flags.join() === wanted.join() &&
  hold.every((state) => process.output().includes(`"held":"${state}"`));

const LOG_CHARACTERS = 200_000;

/** Of the views of a migration only the first in each status: there are five a second. */
function withoutProgress(output: string): string {
  let before: string | undefined;
  const lines = output.split("\n").filter((line) => {
    const status = /^\{"id":.*"status":"(\w+)"/.exec(line)?.[1];
    const told = status !== undefined && status === before;
    if (status !== undefined) before = status;
    return !told;
  });
  return lines.join("\n").slice(-LOG_CHARACTERS);
}
