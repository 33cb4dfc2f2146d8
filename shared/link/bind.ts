/** Binds the addresses of an agent's gRPC server, and names the process that holds a taken one. */
import { rm, stat } from "node:fs/promises";
import { type Server, ServerCredentials } from "@grpc/grpc-js";
import { type AgentAddress, isLoopback, parseAddress } from "../address.ts";
import { MigrationFault } from "../fault.ts";
import { isLeftBehind } from "../runtime/listened-at.ts";
import { holderOfPort, holderOfUnixSocket } from "../runtime/process-holding.ts";
import { type LinkSecurity, LOOPBACK_ONLY } from "./security.ts";
import { listenTls, type TlsListener } from "./tls-listener.ts";
import { targetOf, zoneMistake } from "./zones.ts";

/**
 * Binds one address.
 * @param text the address, as the setting `listen` has it
 * @param secured gets the listener, when it is one with TLS
 * @returns the address with the port that was chosen
 * @throws MigrationFault `agent-running` when the address is taken, `configuration` when it cannot be bound for another
 *   reason
 */
export async function bind(
  server: Server,
  text: string,
  security: LinkSecurity = LOOPBACK_ONLY,
  secured: TlsListener[] = [],
): Promise<string> {
  const address = parseAddress(text);
  if (security.kind === "clear" && !security.insecure && !isLoopback(address))
    throw new MigrationFault("configuration", `${text} is not a loopback address, and there is no TLS`, {
      advice: "Set tls.ca, tls.certificate and tls.key, or tls.insecure when everybody on that network can be trusted",
    });
  if (address.kind === "unix") await removeStaleSocket(address.path);
  try {
    if (security.kind === "clear" || address.kind === "unix") return named(text, await bindClear(server, text));
    const listener = await listenTls(server, address, security);
    secured.push(listener);
    return named(text, listener.port);
  } catch (thrown) {
    throw await cannotListen(text, address, thrown);
  }
}

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

function bindClear(server: Server, text: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(targetOf(text), ServerCredentials.createInsecure(), (error, chosen) => {
      if (error === null) resolve(chosen);
      else reject(error);
    });
  });
}

/** The address with the port that was chosen. */
function named(text: string, port: number): string {
  const address = parseAddress(text);
  return address.kind === "unix" ? text : text.replace(/:\d+$/, `:${port}`);
}

/**
 * Removes a socket that a killed agent left behind. A path that is no socket, or at which somebody still listens,
 * stays, and binding it fails.
 */
async function removeStaleSocket(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isSocket() && (await isLeftBehind(path))) await rm(path, { force: true });
}
