/**
 * A TCP port with mutual TLS in front of a gRPC server. The port is ours and not grpc-js's, since only whoever holds the
 * socket knows why a certificate was not accepted; the server gets the connection after the handshake.
 */
import { constants } from "node:crypto";
import type { Socket } from "node:net";
import { createServer, type PeerCertificate, type TLSSocket, type TlsOptions } from "node:tls";
import { experimental, type Server, ServerCredentials } from "@grpc/grpc-js";
import { MigrationFault } from "../fault.ts";
import { type KeyMaterial, TLS_VERSION } from "../runtime/certificates.ts";
import { authorising, type Stranger } from "./authorise.ts";
import { RefusalLog } from "./refusal-log.ts";
import type { TlsSecurity } from "./security.ts";
import { named } from "./zones.ts";

export interface TlsListener {
  readonly port: number;
  /** No connection is taken any more; those that are open end with the server's. */
  stop(): void;
  /** Cuts what is still open. */
  cut(): void;
}

/** Without a good certificate there is nothing to stay for: long enough for a refusal, or a look at the health. */
const STRANGER_MS = 10_000;
const HANDSHAKE_MS = 10_000;

/** @throws the error of listen() */
export async function listenTls(
  server: Server,
  { host, port }: { host: string; port: number },
  security: TlsSecurity,
): Promise<TlsListener> {
  const strangers = new Map<string, Stranger>();
  const sockets = new Set<Socket>();
  const refusals = new RefusalLog(security.log);
  const injector = server.createConnectionInjector(
    experimental.createServerCredentialsWithInterceptors(ServerCredentials.createInsecure(), [
      authorising(
        security,
        (peer) => strangers.get(peer),
        (fault, peer, path) => refusals.add(fault, peer, path),
      ),
    ]),
  );
  const listener = createServer(tlsOptions(security.certificates.current), (socket) => {
    socket.on("error", () => socket.destroy());
    if (!socket.authorized) receiveStranger(socket, strangers);
    injector.injectConnection(socket);
  });
  // before the handshake, so that one under way when the server ends does not outlive it
  listener.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  listener.on("tlsClientError", (error: NodeJS.ErrnoException, socket) => {
    refusals.add(handshakeFault(error), socket.remoteAddress ?? "an address that has gone");
  });
  const forget = security.certificates.onChange((material) => listener.setSecureContext(tlsOptions(material)));
  try {
    await new Promise<void>((resolve, reject) => {
      listener.once("error", reject);
      listener.listen({ host: named(host), port }, resolve);
    });
  } catch (thrown) {
    forget();
    throw thrown;
  }
  const bound = listener.address();
  return {
    port: bound !== null && typeof bound === "object" ? bound.port : port,
    stop: () => {
      forget();
      listener.close();
    },
    cut: () => {
      for (const socket of sockets) socket.destroy();
    },
  };
}

const tlsOptions = ({ ca, certificate, key }: KeyMaterial): TlsOptions => ({
  ca,
  cert: certificate,
  key,
  minVersion: TLS_VERSION,
  requestCert: true,
  // refused by call, with the reason: authorise.ts
  rejectUnauthorized: false,
  ALPNProtocols: ["h2"],
  handshakeTimeout: HANDSHAKE_MS,
  // a resumed session would bring its verdict along, past a CA that has been replaced since
  secureOptions: constants.SSL_OP_NO_TICKET,
});

/** What is wrong with it is kept under the address that grpc-js shows of its calls, for the message only. */
function receiveStranger(socket: TLSSocket, strangers: Map<string, Stranger>): void {
  const peer = `${socket.remoteAddress}:${socket.remotePort}`;
  // an empty object when none was shown, whatever its type says
  const shown: Partial<PeerCertificate> | null = socket.getPeerCertificate();
  const certificate = shown?.raw === undefined ? undefined : socket.getPeerCertificate();
  const stranger = { problem: String(socket.authorizationError), certificate };
  strangers.set(peer, stranger);
  const timer = setTimeout(() => socket.destroy(), STRANGER_MS);
  socket.once("close", () => {
    clearTimeout(timer);
    if (strangers.get(peer) === stranger) strangers.delete(peer);
  });
}

function handshakeFault(error: NodeJS.ErrnoException): MigrationFault {
  const { code = "", message } = error;
  const words = /[^:]*:SSL routines:[^:]*:([^:]+)/.exec(message)?.[1] ?? message;
  const what = /WRONG_VERSION_NUMBER|HTTP_REQUEST|PACKET_LENGTH_TOO_LONG/.test(code)
    ? "The caller does not speak TLS"
    : code === "ECONNRESET"
      ? "The caller left during the TLS handshake; it may not trust this agent's certificate"
      : `The TLS handshake failed: ${words.trim()}`;
  return new MigrationFault("peer-untrusted", what, { cause: error });
}
