/** Both agents on a rig's host, as the programs that are installed, and the `ferry` command against them. */
import { join } from "node:path";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import type { RigProcess } from "./process.ts";
import type { Rig, RigHost } from "./rig.ts";

const READY = { timeoutMs: 20_000 };
const SOURCE_PORT = 7411;
const DESTINATION_PORT = 7412;

export interface HostAgents {
  readonly host: RigHost;
  readonly source: RigProcess;
  readonly destination: RigProcess;
  /** Where operators reach the source agent, and sources the destination agent. */
  readonly sourceAddress: string;
  readonly destinationAddress: string;
}

export interface AgentOptions {
  readonly source?: readonly string[];
  readonly destination?: readonly string[];
}

/** Compiled program of this package. */
const program = (path: string): string => join(packageRoot(), "dist", path);

/** On the loopback both hosts share the addresses, so the second one's ports are others. */
export async function startAgents(rig: Rig, host: RigHost, options: AgentOptions = {}): Promise<HostAgents> {
  const shift = host.name === "b" && rig.network.kind === "loopback" ? 10 : 0;
  const sourceAddress = `${host.address}:${SOURCE_PORT + shift}`;
  const destinationAddress = `${host.address}:${DESTINATION_PORT + shift}`;
  const common = (listen: string, state: string): string[] => [
    `--listen=${listen}`,
    `--guests-directory=${host.guestsDirectory}`,
    `--runtime-directory=${host.runtimeDirectory}`,
    `--state-directory=${join(host.stateDirectory, state)}`,
    "--tls-insecure",
  ];
  const start = (name: string, path: string, args: readonly string[]): Promise<RigProcess> =>
    rig.spawn(host, `${name} on ${host.name}`, [
      process.execPath,
      ...(process.env.NODE_ARGS ?? "").split(" ").filter((one) => one !== ""),
      program(path),
      ...args,
    ]);
  const source = await start("ferry-source", "agent-source/main.js", [
    ...common(sourceAddress, "source"),
    ...(options.source ?? []),
  ]);
  const destination = await start("ferry-destination", "agent-destination/main.js", [
    ...common(destinationAddress, "destination"),
    ...(options.destination ?? []),
  ]);
  await source.waitForOutput(/Listening at/, READY);
  await destination.waitForOutput(/Listening at/, READY);
  return { host, source, destination, sourceAddress, destinationAddress };
}

/** Runs `ferry` on the host of these agents. */
export function ferry(rig: Rig, agents: HostAgents, args: readonly string[]): Promise<RigProcess> {
  return rig.spawn(agents.host, `ferry ${args.join(" ")}`, [
    process.execPath,
    program("cli/main.js"),
    "--agent",
    agents.sourceAddress,
    ...args,
  ]);
}
