/** The agents' gRPC servers: the services of proto/ferry/v1, reflection and grpc.health.v1. */
import { rm, stat } from "node:fs/promises";
import { connect } from "node:net";
import {
  type handleBidiStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
} from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";
import { HealthImplementation } from "grpc-health-check";
import { isLoopback, parseAddress } from "../address.ts";
import { MigrationFault } from "../fault.ts";
import type { DestinationMessage, SettleCall, SourceMessage } from "../protocol/messages.ts";
import type { PlanCall } from "../protocol/plan-view.ts";
import { isFinal, type MigrateCall, type MigrationView, type ResolveCall } from "../protocol/report.ts";
import { callerOf } from "./authorise.ts";
import { ServingChannel } from "./grpc-channel.ts";
import { type DestinationService, KEEP_ALIVE_MS, type LinkLimits, type Listener, type SourceService } from "./link.ts";
import { OPERATOR_STREAMS_MAX, OperatorStreams } from "./operator-streams.ts";
import { orThrow, type Received } from "./proto-files.ts";
import { reflectedDefinition } from "./reflection.ts";
import { type LinkSecurity, LOOPBACK_ONLY } from "./security.ts";
import { destinationService, migrationService, transferService } from "./services.ts";
import { toStatus } from "./status.ts";
import { listenTls, type TlsListener } from "./tls-listener.ts";

export interface ServeOptions {
  /** "host:port" or "unix:PATH" each; port 0 takes any. */
  readonly listen: readonly string[];
  readonly limits: LinkLimits;
  /** Streams of views at the same time. @default 64 */
  readonly operatorStreamsMax?: number;
  /** For tests. @default 10 000 */
  readonly helloWithinMs?: number;
}

const HELLO_WITHIN_MS = 10_000;
/** The largest are an offer, and the digests of a stretch of memory: 64 KiB. Frames go the other way. */
const REQUEST_BYTES_MAX = 256 << 10;
/** Calls of one connection at the same time; more wait at the client. */
const STREAMS_MAX = 256;

/** The source agent's: operators ask, destinations dial in. */
export function serveSource(service: SourceService, options: ServeOptions): Promise<Listener> {
  const server = makeServer(options);
  const streams = new OperatorStreams(options.operatorStreamsMax ?? OPERATOR_STREAMS_MAX);
  server.addService(migrationService, {
    ListGuests: unary(() => service.listGuests()),
    Plan: unary((call: PlanCall) => service.plan(call)),
    Migrate: watching(async (call: MigrateCall) => service.migrate(call), service, streams),
    GetMigration: unary(async (id: string) => service.getMigration(id)),
    ListMigrations: unary(async () => service.listMigrations()),
    WatchMigration: watching(async (id: string) => id, service, streams),
    CancelMigration: unary((id: string) => service.cancel(id)),
    GetHeatMap: unary(async (call: { idOrGuest: string; cells: number }) =>
      service.heatMap(call.idOrGuest, call.cells),
    ),
    ResolveMigration: unary((call: ResolveCall) => service.resolve(call)),
  });
  server.addService(transferService, { Transfer: transfer(service, options.helloWithinMs ?? HELLO_WITHIN_MS) });
  return listen(server, options, ["ferry.v1.MigrationService", "ferry.v1.TransferService"]);
}

/** The destination agent's: sources shake hands. */
export function serveDestination(service: DestinationService, options: ServeOptions): Promise<Listener> {
  const server = makeServer(options);
  server.addService(destinationService, {
    Handshake: unary((offer: Parameters<DestinationService["handshake"]>[0], call) =>
      service.handshake(offer, callerText(call, options.limits.security)),
    ),
    Settle: unary((call: SettleCall) => service.settle(call)),
  });
  return listen(server, options, ["ferry.v1.DestinationService"]);
}

function makeServer({ limits }: ServeOptions): Server {
  return new Server({
    "grpc.max_receive_message_length": Math.min(limits.messageBytes, REQUEST_BYTES_MAX),
    "grpc.max_concurrent_streams": STREAMS_MAX,
    "grpc.max_send_message_length": limits.messageBytes,
    "grpc.keepalive_time_ms": limits.keepAliveMs ?? KEEP_ALIVE_MS,
    "grpc.keepalive_timeout_ms": limits.keepAliveMs ?? KEEP_ALIVE_MS,
  });
}

async function listen(server: Server, options: ServeOptions, names: readonly string[]): Promise<Listener> {
  const health = new HealthImplementation({
    "": "SERVING",
    ...Object.fromEntries(names.map((name) => [name, "SERVING"])),
  });
  health.addToServer(server);
  new ReflectionService(reflectedDefinition(), { services: [...names, "grpc.health.v1.Health"] }).addToServer(server);
  const bound: string[] = [];
  const secured: TlsListener[] = [];
  const end = (): void => {
    for (const one of secured) one.cut();
    server.forceShutdown();
  };
  try {
    for (const text of options.listen) bound.push(await bind(server, text, options.limits.security, secured));
  } catch (thrown) {
    for (const one of secured) one.stop();
    end();
    throw thrown;
  }
  return {
    address: bound[0] ?? "",
    close: async (graceMs) => {
      for (const name of names) health.setStatus(name, "NOT_SERVING");
      for (const one of secured) one.stop();
      await shutDown(server, graceMs, end);
      for (const one of secured) one.cut();
      for (const text of options.listen)
        if (text.startsWith("unix:")) await rm(text.slice("unix:".length), { force: true });
    },
  };
}

/** Torn connections have ended by then; grpc-js waits for ever for one that broke in the very moment of tryShutdown(). */
const TORN_WITHIN_MS = 1000;

function shutDown(server: Server, graceMs: number, tear: () => void): Promise<void> {
  return new Promise((resolve) => {
    let late: NodeJS.Timeout | undefined;
    const timer = setTimeout(() => {
      tear();
      late = setTimeout(resolve, TORN_WITHIN_MS);
    }, graceMs);
    server.tryShutdown(() => {
      clearTimeout(timer);
      clearTimeout(late);
      resolve();
    });
  });
}

/** @param secured gets the listener, when it is one with TLS */
async function bind(
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
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new MigrationFault("configuration", `Cannot listen at ${text}: ${reason}`, {
      cause: thrown,
      advice: "Is another agent running, or the address not of this host?",
    });
  }
}

function bindClear(server: Server, text: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(text, ServerCredentials.createInsecure(), (error, chosen) => {
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

/** A socket that a killed agent left behind; what is no socket, or is answered, is left for bind() to stumble over. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isSocket() && !(await isAnswered(path))) await rm(path, { force: true });
}

function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

function unary<Request, Response>(
  handle: (request: Request, call: ServerUnaryCall<Received<Request>, Response>) => Promise<Response>,
): handleUnaryCall<Received<Request>, Response> {
  return (call, callback) => {
    const answer = async (): Promise<Response> => handle(orThrow(call.request), call);
    answer().then(
      (response) => callback(null, response),
      (thrown: unknown) => callback(toStatus(thrown)),
    );
  };
}

/** Who calls, for the log. */
function callerText<Request, Response>(call: ServerUnaryCall<Request, Response>, security?: LinkSecurity): string {
  const peer = call.getPeer();
  return security?.kind === "tls" ? `${callerOf(call.getAuthContext(), security)} at ${peer}` : `${peer}, no TLS`;
}

/** Views of a migration until its end. A client that does not read misses views in between, never the last. */
function watching<Request>(
  begin: (request: Request) => Promise<string>,
  service: SourceService,
  streams: OperatorStreams,
): handleServerStreamingCall<Received<Request>, MigrationView> {
  return (call) => {
    const start = async (): Promise<string> => {
      const request = orThrow(call.request);
      streams.admit(call);
      return begin(request);
    };
    start()
      .then((id) => follow(call, id, service))
      .catch((thrown: unknown) => call.emit("error", toStatus(thrown)));
  };
}

function follow<Request>(call: ServerWritableStream<Request, MigrationView>, id: string, service: SourceService): void {
  // the client left while the migration was being started
  if (call.cancelled) return;
  let behind = false;
  let end: (() => void) | undefined;
  let ended = false;
  const finish = (): void => {
    // "cancelled" comes behind an orderly end too
    if (ended) return;
    ended = true;
    end?.();
  };
  call.on("cancelled", finish);
  call.on("drain", () => {
    behind = false;
  });
  end = service.watch(id, (view) => {
    if (ended || (behind && !isFinal(view.status))) return;
    behind = !call.write(view);
    if (!isFinal(view.status)) return;
    finish();
    call.end();
  });
  if (ended) end();
}

function transfer(
  service: Pick<SourceService, "acceptTransfer">,
  helloWithinMs: number,
): handleBidiStreamingCall<Received<DestinationMessage>, SourceMessage> {
  return (call) => {
    const channel = new ServingChannel<SourceMessage, DestinationMessage>(call);
    const timer = setTimeout(() => {
      // no refusal: its hello may have been cut off
      channel.close(
        new MigrationFault("peer-lost", `The destination did not introduce itself within ${helloWithinMs} ms`),
      );
    }, helloWithinMs);
    void channel.closed.then(() => clearTimeout(timer));
    channel.receive((message) => {
      clearTimeout(timer);
      if (message.kind !== "hello")
        throw new MigrationFault("peer-invalid", "The destination did not introduce itself first");
      channel.hold();
      service.acceptTransfer(message, channel);
    });
  };
}
