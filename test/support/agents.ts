/**
 * Starts both agents on a rig's host, as the programs that are installed, and runs the `ferry` command against them.
 */
import { join } from "node:path";
import type { MigrationView } from "../../shared/protocol/report.ts";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import type { RigProcess } from "./process.ts";
import type { Rig, RigHost } from "./rig.ts";

/** How long an agent may take until it listens. On a machine with much else to do a start of Node takes a while. */
export const AGENT_READY = { timeoutMs: 60_000 };
/** How long an agent may take for its warm-up. Its rounds take seconds each, and minutes on a busy machine. */
const REHEARSED = { timeoutMs: 200_000 };
const SOURCE_PORT = 7411;
const DESTINATION_PORT = 7412;

export interface HostAgents {
  readonly host: RigHost;
  readonly source: RigProcess;
  readonly destination: RigProcess;
  /** Where operators reach the source agent, and where source agents reach the destination agent. */
  readonly sourceAddress: string;
  readonly destinationAddress: string;
  /** The flags that `ferry` needs for the agents to let it in. */
  readonly ferryFlags: readonly string[];
  /** The root of the build whose `ferry` asks these agents. @default this build */
  readonly build?: string;
}

export interface AgentOptions {
  readonly source?: readonly string[];
  readonly destination?: readonly string[];
  readonly ferry?: readonly string[];
  /**
   * True if the agents are to do their warm-up, as they do by default, and are to be waited for until it is done. Most
   * tests have no use for it.
   * @default false
   */
  readonly rehearsed?: boolean;
  /** The root of the build whose agents are started (test/support/last-release.ts). @default this build */
  readonly build?: string;
}

/** Node's options in the first line of the agents' programs. */
export const NODE_OPTIONS = [
  "--single-threaded-gc",
  "--max-semi-space-size=2",
  "--no-flush-bytecode",
  "--retain-maps-for-n-gc=1000000",
  "--no-memory-reducer",
];
/** The variable of the environment that this first line sets. */
export const NODE_ENVIRONMENT = { MALLOC_ARENA_MAX: "2" };
/**
 * The time that the units of systemd/ give an agent to end (TimeoutStopSec): `shutdown.grace`, which is 30 s by
 * default, and a margin.
 */
export const AGENT_GRACE_MS = 45_000;

/** The flag by which an agent does its warm-up. */
const REHEARSES = "--rehearsal=true";

type AgentKind = "source" | "destination";

/** The address of an agent. On the loopback both hosts have the same address, so host b has other ports there. */
export function agentAddress(rig: Rig, host: RigHost, kind: AgentKind): string {
  const shift = host.name === "b" && rig.network.kind === "loopback" ? 10 : 0;
  return `${host.address}:${(kind === "source" ? SOURCE_PORT : DESTINATION_PORT) + shift}`;
}

/**
 * Starts one agent, with the Node options of its program's first line. The agent may not be ready yet when this
 * returns, or may refuse to start.
 * @param build the root of the agent's build. On a host with systemd the agent is the one of its unit all the same
 */
export function spawnAgent(
  rig: Rig,
  host: RigHost,
  kind: AgentKind,
  extra: readonly string[] = [],
  build = packageRoot(),
): Promise<RigProcess> {
  const flags = [
    `--listen=${agentAddress(rig, host, kind)}`,
    `--guests-directory=${host.guestsDirectory}`,
    `--runtime-directory=${host.runtimeDirectory}`,
    `--state-directory=${join(host.stateDirectory, kind)}`,
    ...(extra.some((flag) => flag.startsWith("--tls-")) ? [] : ["--tls-insecure"]),
    // only tests of this socket have one, since other tests look for files that agents leave behind
    ...(extra.some((flag) => flag.startsWith("--operators-socket")) ? [] : ["--operators-socket="]),
    ...(extra.includes(REHEARSES) ? [] : ["--rehearsal=false"]),
    ...extra,
  ];
  const name = `ferry-${kind} on ${host.name}`;
  const units = rig.units(host);
  if (units !== undefined) return rig.spawnFor(host, name, units.prepareAgent(kind, flags), AGENT_GRACE_MS);
  const command = [process.execPath, ...NODE_OPTIONS, join(build, `dist/agent-${kind}/main.js`), ...flags];
  return rig.spawn(host, name, command, {
    environment: NODE_ENVIRONMENT,
    graceMs: AGENT_GRACE_MS,
  });
}

/** Starts one agent as spawnAgent() does, and waits until it serves and has done its warm-up, if it does one. */
export async function startAgent(
  rig: Rig,
  host: RigHost,
  kind: AgentKind,
  extra: readonly string[] = [],
  build = packageRoot(),
): Promise<RigProcess> {
  const agent = await spawnAgent(rig, host, kind, extra, build);
  await agent.waitForOutput(/Listening at/, AGENT_READY);
  if (extra.includes(REHEARSES)) await agent.waitForOutput(/"the warm-up is done"/, REHEARSED);
  return agent;
}

/** Starts both agents of a host, and waits for them. */
export async function startAgents(rig: Rig, host: RigHost, options: AgentOptions = {}): Promise<HostAgents> {
  const rehearsal = options.rehearsed === true ? [REHEARSES] : [];
  const { build = packageRoot() } = options;
  const [source, destination] = await Promise.all([
    startAgent(rig, host, "source", [...rehearsal, ...(options.source ?? [])], build),
    startAgent(rig, host, "destination", [...rehearsal, ...(options.destination ?? [])], build),
  ]);
  const sourceAddress = agentAddress(rig, host, "source");
  const destinationAddress = agentAddress(rig, host, "destination");
  return { host, source, destination, sourceAddress, destinationAddress, ferryFlags: options.ferry ?? [], build };
}

/** The whole command line of `ferry` on the host of these agents. */
export const ferryCommand = (agents: HostAgents, args: readonly string[]): readonly string[] => [
  ...agents.host.prefix,
  process.execPath,
  join(agents.build ?? packageRoot(), "dist/cli/main.js"),
  "--agent",
  agents.sourceAddress,
  ...agents.ferryFlags,
  ...args,
];

/** Runs `ferry` on the host of these agents. */
export function ferry(rig: Rig, agents: HostAgents, args: readonly string[]): Promise<RigProcess> {
  const command = ferryCommand(agents, args).slice(agents.host.prefix.length);
  return rig.spawn(agents.host, `ferry ${args.join(" ")}`, command);
}

/** Runs `ferry list`. @returns the views that it prints */
export async function listMigrations(rig: Rig, agents: HostAgents): Promise<readonly MigrationView[]> {
  const list = await ferry(rig, agents, ["--json", "list"]);
  await list.ended;
  return list
    .output()
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line): MigrationView => JSON.parse(line));
}
