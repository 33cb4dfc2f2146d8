/** The agents' clients of each other over gRPC: a source calls a destination, and a destination pulls from a source. */
import { type ChannelOptions, Client, type ServiceError } from "@grpc/grpc-js";
import { MigrationFault } from "../../fault.ts";
import type { HandshakeAnswer, Offer } from "../../protocol/messages.ts";
import type { DestinationMessage, SourceMessage } from "../../protocol/stream-messages.ts";
import { systemClock } from "../../runtime/clock.ts";
import { ChannelByHand } from "../h2/channel-by-hand.ts";
import { Connection } from "../h2/connection.ts";
import { ERROR } from "../h2/not-understood.ts";
import { type DestinationChannel, type DestinationClient, KEEP_ALIVE_MS, type LinkLimits } from "../link.ts";
import { targetOf } from "../listen/zones.ts";
import type { Dialled } from "../tls/connection-fault.ts";
import { callWith, termsFor, UNIX_ONLY } from "../tls/security.ts";
import type { DomainMethod, Received } from "../wire/proto-files.ts";
import { peersFault } from "../wire/status.ts";
import { DiallingChannel } from "./grpc-channel.ts";
import { CONTROL_BYTES_MAX, destinationService, readInPlace, transferService } from "./services.ts";
import { callFault } from "./wrong-port.ts";

/**
 * The options of a gRPC client. The receive window lets pages flow at more than 64 KiB a round trip. In grpc-js only a
 * client can raise its window, which is why the destination dials (ARCHITECTURE.md, "The life of a migration"). Retries
 * are off, since they would keep a copy of every message. Keep-alive notices within seconds that a peer is gone.
 */
export function clientOptions(limits: LinkLimits): ChannelOptions {
  checkWindow(limits);
  return {
    "grpc-node.flow_control_window": limits.receiveWindowBytes,
    "grpc.max_receive_message_length": limits.messageBytes,
    "grpc.max_send_message_length": limits.messageBytes,
    "grpc.use_local_subchannel_pool": 1,
    "grpc.enable_retries": 0,
    "grpc.keepalive_time_ms": limits.keepAliveMs ?? KEEP_ALIVE_MS,
    "grpc.keepalive_timeout_ms": limits.keepAliveMs ?? KEEP_ALIVE_MS,
  };
}

function checkWindow({ receiveWindowBytes }: LinkLimits): void {
  // grpc-js accepts 0, and then nothing ever arrives
  if (!(receiveWindowBytes > 0)) throw new RangeError(`a receive window of ${receiveWindowBytes} bytes`);
}

/**
 * Makes a client for an address, and does not connect yet.
 * @throws MigrationFault `invalid-argument` when the text is no address, `configuration` when it must not be called in
 *   clear, `not-authorised` for a unix socket that may not be called
 */
export function dial(address: string, limits: LinkLimits): { client: Client; dialled: Dialled } {
  const { credentials, options, dialled } = callWith(address, limits.security ?? UNIX_ONLY);
  return { client: new Client(targetOf(address), credentials, { ...clientOptions(limits), ...options }), dialled };
}

/** Makes a source's client of a destination. @throws the faults of dial() */
export function connectDestination(address: string, limits: LinkLimits): DestinationClient {
  const messageBytes = Math.min(limits.messageBytes, CONTROL_BYTES_MAX);
  const { client, dialled } = dial(address, { ...limits, messageBytes });
  return {
    handshake: (offer, timeoutMs, signal) => handshake(client, dialled, offer, timeoutMs, signal),
    settle: (call, timeoutMs, signal) => ask(client, dialled, destinationService.Settle, call, timeoutMs, signal),
    close: () => client.close(),
  };
}

async function handshake(
  client: Client,
  dialled: Dialled,
  offer: Offer,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<{ answer: HandshakeAnswer; roundTripMs: number }> {
  const startMs = systemClock.monotonicMs();
  const answer = await ask(client, dialled, destinationService.Handshake, offer, timeoutMs, signal);
  return { answer, roundTripMs: systemClock.monotonicMs() - startMs };
}

function ask<Request, Response>(
  client: Client,
  dialled: Dialled,
  { path, requestSerialize, responseDeserialize }: DomainMethod<Request, Response>,
  request: Request,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    const done = (error: ServiceError | null, received?: Received<Response>): void => {
      signal?.removeEventListener("abort", onAbort);
      if (received instanceof MigrationFault) reject(received);
      else if (received !== undefined) resolve(received);
      else if (signal?.aborted) reject(signal.reason);
      else if (error !== null)
        void callFault(error, client, dialled, "destination").then((fault) => reject(peersFault(fault)));
    };
    const deadline = systemClock.nowUs() / 1000 + timeoutMs;
    const call = client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, { deadline }, done);
    const onAbort = (): void => call.cancel();
    signal?.addEventListener("abort", onAbort, { once: true });
    if (signal?.aborted) call.cancel();
  });
}

/** The way to a source, over which transfer streams are opened, one after the other. */
export interface SourceConnection {
  /**
   * Opens a transfer stream over a connection that ends with the stream. The first call uses the connection that was
   * begun ahead, if that one still stands, and each later call makes a new one.
   */
  readonly dial: () => DestinationChannel;
  /** Ends a connection on which no stream was opened. */
  readonly close: () => void;
}

/** A connection to a source that was begun, by Ferry's own HTTP/2 client or by grpc-js, and has no stream yet. */
interface Begun {
  /** False once the connection has ended before a stream was opened. */
  readonly isUsable: () => boolean;
  readonly open: () => DestinationChannel;
  readonly close: () => void;
}

/**
 * Begins to connect to a source while the caller does something else: over a long way, and with TLS, several round
 * trips pass before a stream can be opened. If the connection fails, the stream that dial() opens tells so.
 *
 * Where `limits.byHand` allows it, the connection is made by the *client by hand*, which is Ferry's own HTTP/2 client
 * (docs/design/wire.md#the-client-by-hand). After it has received bytes that it does not understand, grpc-js makes the
 * connections that follow.
 * @throws the faults of dial()
 */
export function connectSource(address: string, limits: LinkLimits): SourceConnection {
  let byHand = limits.byHand ?? true;
  const onNotUnderstood = (fault: MigrationFault): void => {
    byHand = false;
    limits.security?.log?.warn({ fault, peer: address }, "the next connection to the source is made by grpc-js");
  };
  const begin = (): Begun => (byHand ? beginByHand(address, limits, onNotUnderstood) : beginByGrpcJs(address, limits));
  let ahead: Begun | undefined = begin();
  return {
    dial: () => {
      const begun = ahead?.isUsable() ? ahead : begin();
      ahead = undefined;
      return begun.open();
    },
    close: () => ahead?.close(),
  };
}

function beginByGrpcJs(address: string, limits: LinkLimits): Begun {
  const { client, dialled } = dial(address, limits);
  client.getChannel().getConnectivityState(true);
  const { path, requestSerialize, responseDeserialize } = transferService.Transfer;
  return {
    // the client of grpc-js makes a lost connection anew by itself
    isUsable: () => true,
    open: () => {
      const call = client.makeBidiStreamRequest<DestinationMessage, Received<SourceMessage>>(
        path,
        requestSerialize,
        responseDeserialize,
      );
      const channel = new DiallingChannel<DestinationMessage, SourceMessage>(call, address, dialled);
      void channel.closed.then(() => client.close());
      return channel;
    },
    close: () => client.close(),
  };
}

function beginByHand(address: string, limits: LinkLimits, onNotUnderstood: (fault: MigrationFault) => void): Begun {
  checkWindow(limits);
  const terms = termsFor(address, limits.security ?? UNIX_ONLY);
  const connection = new Connection({ address, terms, limits, clock: systemClock });
  const { path, requestSerialize } = transferService.Transfer;
  const method = { path, serialize: requestSerialize, deserialize: readInPlace };
  const { dialled, tls } = terms;
  return {
    isUsable: () => !connection.isOver,
    open: () =>
      new ChannelByHand<DestinationMessage, SourceMessage>(connection, {
        ...{ method, dialled, onNotUnderstood },
        isSecure: tls !== undefined,
      }),
    close: () => connection.leave(ERROR.none),
  };
}

/** Connects to a source and opens the transfer stream. The connection ends with the stream. */
export const dialSource = (address: string, limits: LinkLimits): DestinationChannel =>
  connectSource(address, limits).dial();

/**
 * Returns the function that opens each connection of one migration to its source.
 * @param ahead a connection that was begun before; the first call uses it
 */
export function diallerOf(address: string, limits: LinkLimits, ahead?: SourceConnection): () => DestinationChannel {
  let source = ahead;
  return () => {
    source ??= connectSource(address, limits);
    return source.dial();
  };
}
