/**
 * A port in clear in front of a gRPC server. Ferry opens the port itself, since grpc-js would take any number of
 * connections: here a connection that is one too many is ended before a byte of it is read.
 */
import { lookup } from "node:dns/promises";
import { createServer, isIP, type ListenOptions, type Server as Port } from "node:net";
import { type Server, ServerCredentials } from "@grpc/grpc-js";
import type { Clock } from "../../runtime/clock.ts";
import type { ConnectionLimits } from "../callers/connection-limits.ts";
import { OpenSockets } from "./open-sockets.ts";
import type { Health } from "./stranger-door.ts";
import { named } from "./zones.ts";

interface TcpAddress {
  readonly host: string;
  readonly port: number;
}

/** A TCP port that Ferry opens itself. */
export interface OwnPort {
  readonly port: number;
  /** Takes no connection any more. Open connections go on until the server ends them. */
  stop(): void;
  /** Cuts the connections that are still open. */
  cut(): void;
}

/** What the ports of one agent have in common. */
export interface PortParts {
  readonly limits: ConnectionLimits;
  readonly healthOf: Health;
  readonly clock: Clock;
}

/** Opens a port in clear. @throws the error of listen() */
export async function listenClear(server: Server, { host, port }: TcpAddress, { limits }: PortParts): Promise<OwnPort> {
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const sockets = new OpenSockets();
  const ports: Port[] = [];
  const open = (): Port => {
    const opened = createServer((socket) => {
      sockets.add(socket);
      limits.receive(socket, "clear", () => injector.injectConnection(socket));
    });
    ports.push(opened);
    return opened;
  };
  const stop = (): void => {
    for (const opened of ports) opened.close();
  };
  let chosen = port;
  try {
    // a host name may have several addresses, and all of them get the same port
    for (const one of await addressesOf(host)) chosen = await listenAt(open(), { host: one, port: chosen });
  } catch (thrown) {
    stop();
    throw thrown;
  }
  return {
    port: chosen,
    stop,
    cut: () => sockets.cut(),
  };
}

async function addressesOf(host: string): Promise<readonly string[]> {
  const bare = named(host);
  if (isIP(host.split("%")[0] ?? "") !== 0) return [bare];
  const found = await lookup(bare, { all: true });
  return [...new Set(found.map(({ address }) => address))];
}

/** Lets `port` listen. @returns the number of the port that was chosen @throws the error of listen() */
export async function listenAt(port: Port, options: ListenOptions): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    port.once("error", reject);
    port.listen(options, () => {
      port.off("error", reject);
      resolve();
    });
  });
  const bound = port.address();
  return bound !== null && typeof bound === "object" ? bound.port : 0;
}
