/** Services for both agents' servers that do what a test wants, and a network between the agents that can be cut. */
import { connect, createServer, type Socket } from "node:net";
import { parseAddress } from "../../shared/address.ts";
import { MigrationFault } from "../../shared/fault.ts";
import { dialSource } from "../../shared/link/grpc/grpc-link.ts";
import { type ServeOptions, serveSource } from "../../shared/link/grpc/grpc-server.ts";
import type { LinkLimits, Listener, MigrationOperator, SourceChannel, SourceService } from "../../shared/link/link.ts";
import type { LinkSecurity } from "../../shared/link/tls/security.ts";
import { deferred } from "../../shared/runtime/deferred.ts";
import type { ChannelPair } from "../compliance/channel.ts";

/** In clear over TCP: the security of a test's own servers on the loopback. */
const security: LinkSecurity = { kind: "clear", insecure: true };
export const LIMITS: LinkLimits = { receiveWindowBytes: 1 << 20, messageBytes: 8 << 20, security };
export const SERVE: ServeOptions = { listen: ["127.0.0.1:0"], limits: LIMITS };

const unexpected = (): never => {
  throw new MigrationFault("internal", "not expected");
};

/** Makes the part of a service that both agents have for operators. It can do only what a test gives it. */
export const migrationOperator = (known: Partial<MigrationOperator>): MigrationOperator => ({
  getMigration: unexpected,
  listMigrations: unexpected,
  watch: unexpected,
  cancel: unexpected,
  resolve: unexpected,
  ...known,
});

/** Makes the service of a source agent. It can do only what a test gives it. */
export const sourceService = (known: Partial<SourceService>): SourceService => ({
  listGuests: unexpected,
  plan: unexpected,
  migrate: unexpected,
  heatMap: unexpected,
  acceptTransfer: unexpected,
  ...migrationOperator({}),
  ...known,
});

/**
 * Opens a relay that passes bytes on until it is cut.
 * @param to an address of an agent
 * @param path where the relay listens; without it, at a port of the loopback
 */
async function relay(to: string, path?: string): Promise<{ address: string; cut(): void; close(): void }> {
  const target = parseAddress(to);
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = target.kind === "unix" ? connect(target.path) : connect(target.port, target.host);
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on("error", () => other.destroy());
      socket.on("close", () => other.destroy());
      socket.pipe(other);
    }
  });
  await new Promise<void>((resolve) => {
    if (path === undefined) server.listen(0, "127.0.0.1", resolve);
    else server.listen(path, resolve);
  });
  const bound = server.address();
  const address = typeof bound === "string" ? `unix:${bound}` : `127.0.0.1:${bound?.port}`;
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  const close = (): void => {
    cut();
    server.close();
  };
  return { address, cut, close };
}

export const portOf = (listener: Listener): number => Number(/:(\d+)$/.exec(listener.address)?.[1]);

/** How a pair of ends is connected. */
interface PairOptions {
  /** Whether the destination speaks HTTP/2 by hand. @default true */
  readonly byHand?: boolean;
  /** How the source is secured, and how the destination is. @default in clear */
  readonly security?: { readonly source: LinkSecurity; readonly destination: LinkSecurity };
  /** A folder for unix sockets. @default TCP */
  readonly folder?: string;
}

/** Opens a transfer stream over gRPC through a relay, up to its hello. It is closed at the end of the test. */
export async function openGrpcPair(
  t: { teardown(done: () => unknown): unknown },
  { byHand = true, security: both = { source: security, destination: security }, folder }: PairOptions = {},
): Promise<ChannelPair> {
  const arrival = deferred<SourceChannel>();
  const service = sourceService({ acceptTransfer: (_, channel) => arrival.resolve(channel) });
  const listen = folder === undefined ? SERVE.listen : [`unix:${folder}/source-${++sockets}.sock`];
  const listener = await serveSource(service, { listen, limits: { ...LIMITS, security: both.source } });
  const network = await relay(listener.address, folder && `${folder}/relay-${sockets}.sock`);
  const destination = dialSource(network.address, { ...LIMITS, security: both.destination, byHand });
  t.teardown(async () => {
    destination.close(new MigrationFault("cancelled", "the test is over"));
    network.close();
    await listener.close(0);
  });
  destination.send({
    kind: "hello",
    migrationId: "m-1",
    token: Buffer.from("token"),
    attempt: 1,
    received: 0,
    generation: 0,
    restarted: false,
  });
  return { source: await arrival.promise, destination, cut: network.cut };
}

/** How many pairs of unix sockets were made, since each has a name of its own. */
let sockets = 0;
