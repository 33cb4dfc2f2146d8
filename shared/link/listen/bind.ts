/** Binds the addresses of an agent's gRPC server. If an address is taken, the fault names the process that holds it. */
import type { Server } from "@grpc/grpc-js";
import { type AgentAddress, parseAddress } from "../../address.ts";
import { MigrationFault } from "../../fault.ts";
import { holderOfPort, holderOfUnixSocket } from "../../runtime/host/process-holding.ts";
import { servingMistake } from "../../serving.ts";
import type { LinkSecurity } from "../tls/security.ts";
import { listenClear, type OwnPort, type PortParts } from "./clear-listener.ts";
import { listenTls } from "./tls-listener.ts";
import { listenUnix, type UnixListener, type UnixSocketOptions } from "./unix-listener.ts";
import { zoneMistake } from "./zones.ts";

/** A listener of an agent. grpc-js itself binds nothing. */
export type BoundListener = OwnPort | UnixListener;

/**
 * Binds one address at which other agents call.
 * @param text the address, as the setting `listen` has it
 * @param parts what the ports of the agent share; the listener that was opened is added to `listeners`
 * @returns the address with the port that was chosen
 * @throws MigrationFault `agent-running` when the address is taken, `configuration` when it cannot be bound for another
 *   reason
 */
export async function bind(
  server: Server,
  text: string,
  security: LinkSecurity,
  { listeners, ...parts }: PortParts & { readonly listeners: BoundListener[] },
): Promise<string> {
  const address = parseAddress(text);
  const serving = security.kind === "tls" ? "tls" : security.insecure ? "insecure" : "none";
  const mistake = servingMistake(address, serving);
  if (mistake !== undefined)
    throw new MigrationFault("configuration", `${text} ${mistake.what}`, { advice: mistake.advice });
  if (address.kind === "unix") {
    await bindUnix(server, { path: address.path, clock: parts.clock }, listeners);
    return text;
  }
  try {
    const opened = await (security.kind === "clear"
      ? listenClear(server, address, parts)
      : listenTls(server, address, security, parts));
    listeners.push(opened);
    return named(text, opened.port);
  } catch (thrown) {
    throw await cannotListen(text, address, thrown);
  }
}

/** Binds a unix socket. @throws the faults of bind() */
export async function bindUnix(server: Server, options: UnixSocketOptions, listeners: BoundListener[]): Promise<void> {
  try {
    listeners.push(await listenUnix(server, options));
  } catch (thrown) {
    throw await cannotListen(`unix:${options.path}`, { kind: "unix", path: options.path }, thrown);
  }
}

/** Makes the fault of an address that cannot be bound. */
async function cannotListen(text: string, address: AgentAddress, thrown: unknown): Promise<MigrationFault> {
  const reason = zoneMistake(text) ?? (thrown instanceof Error ? thrown.message : String(thrown));
  const message = `Cannot listen at ${text}: ${reason}`;
  if (!/EADDRINUSE/.test(reason))
    return new MigrationFault("configuration", message, {
      cause: thrown,
      advice: "Is the address one of this host's, and may the agent's user listen there?",
    });
  const holder = await (address.kind === "unix" ? holderOfUnixSocket(address.path) : holderOfPort(address.port));
  const who = holder === undefined ? "another agent, or another program" : `process ${holder.pid} (${holder.command})`;
  return new MigrationFault("agent-running", `${message}; ${who} listens there`, {
    cause: thrown,
    advice: "If that is another agent of this kind, leave it or stop it before you start this one; else set listen",
  });
}

/** Puts the port that was chosen into an address. */
const named = (text: string, port: number): string => text.replace(/:\d+$/, `:${port}`);
