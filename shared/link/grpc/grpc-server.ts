/** Opens the agents' gRPC servers, with the services of proto/ferry/v1, reflection and grpc.health.v1. */
import { type handleBidiStreamingCall, Server } from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";
import { HealthImplementation } from "grpc-health-check";
import { MigrationFault } from "../../fault.ts";
import type { DestinationMessage, Hello, SettleCall, SourceMessage } from "../../protocol/stream-messages.ts";
import type { OperatorSocket } from "../../runtime/agent/operator-socket.ts";
import { type Clock, systemClock } from "../../runtime/clock.ts";
import type { ConnectionConfig } from "../../runtime/config/config-network.ts";
import { limitingCalls } from "../callers/call-limits.ts";
import { ConnectionLimits } from "../callers/connection-limits.ts";
import {
  type DestinationService,
  KEEP_ALIVE_MS,
  type LinkLimits,
  type Listener,
  type MigrationOperator,
  type SourceChannel,
  type SourceService,
} from "../link.ts";
import { type BoundListener, bind, bindUnix } from "../listen/bind.ts";
import { UNIX_ONLY } from "../tls/security.ts";
import type { Received } from "../wire/proto-files.ts";
import { type Audit, auditing } from "./audit.ts";
import { checkSourceAddress, peerOf } from "./caller.ts";
import { sendFramesInPlace } from "./frames-in-place.ts";
import { Gate } from "./gate.ts";
import { ServingChannel } from "./grpc-channel.ts";
import { destinationOperators, type OperatorParts, sourceOperators } from "./operator-server.ts";
import { OPERATOR_STREAMS_MAX, OperatorStreams } from "./operator-streams.ts";
import { reflectedDefinition } from "./reflection.ts";
import { CONTROL_BYTES_MAX, destinationService, migrationService, transferService } from "./services.ts";
import { unaryBehind } from "./unary.ts";

export interface ServeOptions {
  /** The addresses at which other agents call, each "host:port" or "unix:PATH". Port 0 takes any free port. */
  readonly listen: readonly string[];
  /** The socket for the operators of this host. @default no such socket */
  readonly operators?: OperatorSocket;
  readonly limits: LinkLimits;
  /** Is told of each call of an operator that changes something. */
  readonly audit?: Audit;
  /** The most calls that stream the views of a migration to an operator at the same time. @default 64 */
  readonly operatorStreamsMax?: number;
  /** How many connections the server takes. @default CONNECTION_DEFAULTS */
  readonly connections?: ConnectionConfig;
  /** @default systemClock */
  readonly clock?: Clock;
}

/** How long a destination that has dialled in may take to introduce itself, milliseconds. */
const HELLO_WITHIN_MS = 10_000;
/** The most calls of one connection at the same time. Further calls wait at the client. */
const STREAMS_MAX = 48;

/**
 * Opens the server of a source agent: operators ask it, and destinations dial in.
 * @param served the service, or the gate that will open to it
 * @throws MigrationFault `agent-running` when an address is taken, `configuration` when it cannot be bound for another
 *   reason
 */
export function serveSource(served: SourceService | Gate<SourceService>, options: ServeOptions): Promise<Listener> {
  const { server, connections } = makeServer(options);
  const gate = Gate.opened(served);
  server.addService(migrationService, sourceOperators(gate, operatorParts(options)));
  server.addService(transferService, { Transfer: transfer(gate, connections, options) });
  return listen(server, connections, gate, options, ["ferry.v1.MigrationService", "ferry.v1.TransferService"]);
}

/**
 * Opens the server of a destination agent: sources shake hands with it, and operators ask it.
 * @param operator answers operators. The server of the warm-up has none, and so no MigrationService
 * @throws the faults of serveSource()
 */
export function serveDestination(
  served: DestinationService | Gate<DestinationService>,
  options: ServeOptions,
  operator?: MigrationOperator | Gate<MigrationOperator>,
): Promise<Listener> {
  const { server, connections } = makeServer(options);
  const gate = Gate.opened(served);
  const unary = unaryBehind(gate);
  const names = ["ferry.v1.DestinationService"];
  if (operator !== undefined) {
    server.addService(migrationService, destinationOperators(Gate.opened(operator), operatorParts(options)));
    names.push("ferry.v1.MigrationService");
  }
  server.addService(destinationService, {
    Handshake: unary((service, offer: Parameters<DestinationService["handshake"]>[0], call) => {
      checkSourceAddress(offer.sourceAddress, call, options.limits.security);
      return service.handshake(offer, peerOf(call, options.limits.security));
    }),
    Settle: unary((service, call: SettleCall) => service.settle(call)),
  });
  return listen(server, connections, gate, options, names);
}

const operatorParts = ({ operatorStreamsMax, audit, limits }: ServeOptions): OperatorParts => ({
  streams: new OperatorStreams(operatorStreamsMax ?? OPERATOR_STREAMS_MAX),
  audit: auditing(audit, limits.security),
});

function makeServer(options: ServeOptions): { readonly server: Server; readonly connections: ConnectionLimits } {
  const { limits } = options;
  const connections = new ConnectionLimits(options.connections, limits.security?.log, options.clock);
  const server = new Server({
    interceptors: [limitingCalls(connections, options.clock)],
    "grpc.max_receive_message_length": Math.min(limits.messageBytes, CONTROL_BYTES_MAX),
    "grpc.max_concurrent_streams": STREAMS_MAX,
    "grpc.max_send_message_length": limits.messageBytes,
    "grpc.keepalive_time_ms": limits.keepAliveMs ?? KEEP_ALIVE_MS,
    "grpc.keepalive_timeout_ms": limits.keepAliveMs ?? KEEP_ALIVE_MS,
    // channelz would count every connection and call, and no program reads its statistics
    "grpc.enable_channelz": 0,
    // max_connection_age is not set: a client of grpc-js that is told to go drops the whole connection at its next
    // ping, and a migration's stream with it (docs/design/security.md#connections)
  });
  return { server, connections };
}

async function listen(
  server: Server,
  limits: ConnectionLimits,
  gate: Gate<unknown>,
  options: ServeOptions,
  names: readonly string[],
): Promise<Listener> {
  const statuses = new Map<string, "SERVING" | "NOT_SERVING">();
  for (const name of ["", ...names]) statuses.set(name, "NOT_SERVING");
  const health = new HealthImplementation(Object.fromEntries(statuses));
  const tell = (status: "SERVING" | "NOT_SERVING"): void => {
    for (const name of statuses.keys()) {
      statuses.set(name, status);
      health.setStatus(name, status);
    }
  };
  gate.whenOpen(() => tell("SERVING"));
  health.addToServer(server);
  new ReflectionService(reflectedDefinition(), { services: [...names, "grpc.health.v1.Health"] }).addToServer(server);
  const bound: string[] = [];
  const listeners: BoundListener[] = [];
  const { clock = systemClock } = options;
  const parts = { listeners, limits, clock, healthOf: (service: string) => statuses.get(service) };
  const { security = UNIX_ONLY } = options.limits;
  const stop = async (): Promise<void> => {
    limits.stop();
    await Promise.all(listeners.map((one) => one.stop()));
  };
  const end = (): void => {
    for (const one of listeners) one.cut();
    server.forceShutdown();
  };
  try {
    for (const text of options.listen) bound.push(await bind(server, text, security, parts));
    const { operators } = options;
    if (operators !== undefined) await bindUnix(server, { path: operators.path, operators, clock }, listeners);
  } catch (thrown) {
    await stop();
    end();
    throw thrown;
  }
  return {
    address: bound[0] ?? "",
    close: async (graceMs) => {
      tell("NOT_SERVING");
      await stop();
      await shutDown(server, graceMs, end, clock);
      for (const one of listeners) one.cut();
    },
  };
}

/**
 * How long a closing server waits for the connections that it has torn, milliseconds. They have ended by then. grpc-js
 * alone would wait for ever for a connection that broke in the very moment of tryShutdown().
 */
const TORN_WITHIN_MS = 1000;

function shutDown(server: Server, graceMs: number, tear: () => void, clock: Clock): Promise<void> {
  return new Promise((resolve) => {
    let timer = clock.after(graceMs, () => {
      tear();
      timer = clock.after(TORN_WITHIN_MS, resolve);
    });
    server.tryShutdown(() => {
      clock.cancel(timer);
      resolve();
    });
  });
}

function transfer(
  gate: Gate<Pick<SourceService, "acceptTransfer">>,
  connections: ConnectionLimits,
  { clock = systemClock }: ServeOptions,
): handleBidiStreamingCall<Received<DestinationMessage>, SourceMessage> {
  return (call) => {
    sendFramesInPlace(call);
    const channel = new ServingChannel<SourceMessage, DestinationMessage>(call);
    const timer = clock.after(HELLO_WITHIN_MS, () => {
      // `peer-lost` lets the destination dial again: its hello may have been cut off
      channel.close(
        new MigrationFault(
          "peer-lost",
          `The destination did not introduce itself within ${HELLO_WITHIN_MS} ms (no Hello)`,
        ),
      );
    });
    void channel.closed.then(() => clock.cancel(timer));
    channel.receive((message) => {
      clock.cancel(timer);
      if (message.kind !== "hello")
        throw new MigrationFault("peer-invalid", "The destination did not introduce itself first (no Hello)");
      channel.hold();
      gate.whenOpen((service) => {
        accept(message, channel, service);
        void channel.closed.then(connections.hold(call.getPeer()));
      });
    });
  };
}

/**
 * Hands a channel to the service. If the channel has closed while it waited at the gate, its promise `closed` tells the
 * service so.
 */
function accept(hello: Hello, channel: SourceChannel, service: Pick<SourceService, "acceptTransfer">): void {
  try {
    service.acceptTransfer(hello, channel);
  } catch (thrown) {
    channel.close(MigrationFault.from(thrown));
  }
}
