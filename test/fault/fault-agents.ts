/**
 * Runs both agents on both hosts, for one fault after the other: starts them again only when a fault needs other
 * settings, kills them, and asks them what they know.
 */
import { join } from "node:path";
import { GrpcOperatorClient } from "../../shared/link/grpc/operator-client.ts";
import type { MigrationView } from "../../shared/protocol/report.ts";
import { AGENT_READY, agentAddress, type HostAgents, spawnAgent } from "../support/agents.ts";
import type { RigProcess } from "../support/process.ts";
import type { Rig, RigHost } from "../support/rig.ts";
import type { AgentKind, Hold } from "./faults.ts";

const ASK_MS = 3000;
const CANCELS_WITHIN_MS = 60_000;
const KINDS = ["source", "destination"] as const;

/** The flags of the agents of each kind, beside those that say where an agent is: the limits of a cell. */
export type AgentFlags = Readonly<Record<AgentKind, readonly string[]>>;

interface RunningAgent {
  readonly process: RigProcess;
  readonly flags: readonly string[];
  /** The states at which the agent holds a migration, each once. */
  readonly hold: readonly string[];
  /** Set while the agent's host is off. */
  isDown?: true;
}

export class FaultAgents {
  readonly rig: Rig;
  readonly #agents = new Map<string, RunningAgent>();
  /** The programs that ran in the cell that is under way, for its log. */
  #cast: RigProcess[] = [];

  protected constructor(rig: Rig) {
    this.rig = rig;
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

  /**
   * Makes all four agents run with these flags.
   * @param holds where agents hold the next migration, which goes away from `from`
   */
  async prepareAgents(from: RigHost, flags: AgentFlags, holds: readonly Hold[] = []): Promise<void> {
    this.#cast = [];
    await Promise.all(
      [this.rig.a, this.rig.b].flatMap((host) =>
        KINDS.map(async (kind) => {
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

  async killAgents(): Promise<void> {
    await Promise.all([...this.#agents.values()].map(({ process }) => this.#kill(process)));
  }

  /**
   * Starts an agent again with its flags, as systemd does when an agent has died.
   * @param hold the states at which the new agent holds a migration
   */
  async restartAgent(host: RigHost, kind: AgentKind, hold: readonly string[] = []): Promise<void> {
    await this.#start(host, kind, this.#agents.get(key(host, kind))?.flags ?? [], hold);
  }

  /**
   * Notes that a host is off: until switchOn() no agent is expected there. @returns the agents' processes, which the
   * caller kills
   */
  protected switchOff(host: RigHost): readonly number[] {
    return KINDS.map((kind) => {
      const running = this.#agents.get(key(host, kind));
      if (running === undefined) throw new Error(`There is no ${kind} agent on ${host.name}`);
      running.isDown = true;
      return running.process.pid;
    });
  }

  /** Starts the agents of a host again with what is on its disk. The guest is not started. */
  async switchOn(host: RigHost, holds: readonly Hold[] = []): Promise<void> {
    await Promise.all(
      KINDS.map(async (kind) => {
        await this.agent(host, kind).ended;
        const own = holds.filter(({ side }) => side === kind);
        await this.restartAgent(
          host,
          kind,
          own.map(({ state }) => state),
        );
      }),
    );
  }

  isDown(host: RigHost): boolean {
    return this.#agents.get(key(host, "source"))?.isDown === true;
  }

  /**
   * The agents that have ended and were not started again, with their last output. No fault of another program may end
   * an agent.
   */
  deadAgents(): readonly string[] {
    return [...this.#agents].flatMap(([name, { process, isDown }]) =>
      process.running || isDown === true
        ? []
        : [`the agent ${name} has ended by itself: ${process.output().slice(-300)}`],
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

  /** @returns what an agent of a host knows; undefined when it does not answer */
  async migrations(host: RigHost, kind: AgentKind = "source"): Promise<readonly MigrationView[] | undefined> {
    const client = new GrpcOperatorClient(`unix:${this.#operatorSocket(host, kind)}`, ASK_MS);
    try {
      return await client.listMigrations();
    } catch {
      return undefined;
    } finally {
      client.close();
    }
  }

  /**
   * Cancels a migration. Returns when the source agent has heard the call; a migration that is held takes notice only
   * later.
   */
  async cancel(host: RigHost, id: string): Promise<void> {
    const client = new GrpcOperatorClient(`unix:${this.#operatorSocket(host, "source")}`, CANCELS_WITHIN_MS);
    void client
      .cancel(id)
      .catch(() => undefined)
      .finally(() => client.close());
    // this call comes after the other one on the same connection, and is answered at once
    await client.listMigrations();
  }

  async #kill(agent: RigProcess): Promise<void> {
    agent.signal("SIGKILL");
    await agent.ended;
  }

  #operatorSocket(host: RigHost, kind: AgentKind): string {
    // an agent in its unit may make no socket elsewhere
    return this.rig.hasUnits
      ? join(host.runtimeDirectory, `${kind}.sock`)
      : join(this.rig.folder, `${host.name}-${kind}.sock`);
  }

  async #start(host: RigHost, kind: AgentKind, flags: readonly string[], hold: readonly string[] = []): Promise<void> {
    const running = this.#agents.get(key(host, kind));
    if (running?.process.running === true) {
      // an agent that was stopped by SIGSTOP would not hear the request to end
      running.process.signal("SIGCONT");
      await running.process.stop();
    }
    const address = agentAddress(this.rig, host, kind);
    // a unix socket of the operators can be reached from another network namespace
    const listen = [`--listen=${address}`, `--operators-socket=${this.#operatorSocket(host, kind)}`];
    const holds = hold.length === 0 ? [] : [`--faults=${hold.map((state) => `hold-at=${state}`).join(",")}`];
    const process = await spawnAgent(this.rig, host, kind, [...listen, ...flags, ...holds]);
    // an agent that never listens is noted too, so that killAgents() ends it
    this.#agents.set(key(host, kind), { process, flags, hold });
    this.#cast.push(process);
    await process.waitForOutput(/Listening at/, AGENT_READY);
  }
}

const key = (host: RigHost, kind: AgentKind): string => `${kind} on ${host.name}`;

/**
 * True when an agent can be used for the next cell: it runs with these flags, and has held at each of its states, where
 * it does not hold again.
 */
const isFit = ({ process, flags, hold }: RunningAgent, wanted: readonly string[]): boolean =>
  process.running &&
  flags.join() === wanted.join() &&
  hold.every((state) => process.output().includes(`"held":"${state}"`));

/** The most characters of a program's output that a log keeps. */
const LOG_CHARACTERS = 200_000;

/** Leaves out the views of a migration except the first in each status, since there are five views a second. */
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
