/**
 * A TCP port with mutual TLS in front of a gRPC server. Ferry opens the port itself, since only the holder of the
 * socket learns why a certificate was not accepted. The gRPC server gets the connection after the handshake.
 */
import { constants } from "node:crypto";
import { createServer as createPort } from "node:net";
import { createServer, type PeerCertificate, type TLSSocket, type TlsOptions } from "node:tls";
import { experimental, type Server, ServerCredentials } from "@grpc/grpc-js";
import { MigrationFault } from "../../fault.ts";
import type { Clock } from "../../runtime/clock.ts";
import { type KeyMaterial, TLS_VERSION } from "../../runtime/files/certificates.ts";
import { authorising, type Connected, judge, untrusted } from "../callers/authorise.ts";
import { RefusalLog } from "../callers/refusal-log.ts";
import { listedName, namesOf, showNames } from "../tls/certificate-names.ts";
import { notListed, type TlsSecurity } from "../tls/security.ts";
import { listenAt, type OwnPort, type PortParts } from "./clear-listener.ts";
import { OpenSockets } from "./open-sockets.ts";
import { type Judge, openStrangerDoor } from "./stranger-door.ts";
import { named } from "./zones.ts";

/** How long a handshake may take, milliseconds. */
const HANDSHAKE_MS = 10_000;

/** Opens a port with TLS. @throws the error of listen() */
export async function listenTls(
  server: Server,
  { host, port }: { host: string; port: number },
  security: TlsSecurity,
  { limits, healthOf, clock }: PortParts,
): Promise<OwnPort> {
  const sockets = new OpenSockets();
  const refusals = new RefusalLog(security.log, clock);
  // the refusals of listed callers have a budget of lines of their own, so that strangers cannot use it up
  const refusedCalls = new RefusalLog(security.log, clock);
  const injector = server.createConnectionInjector(
    experimental.createServerCredentialsWithInterceptors(ServerCredentials.createInsecure(), [
      authorising(security, (fault, peer, path) => refusedCalls.add(fault, peer, path)),
    ]),
  );
  const receiveStranger = strangers(security, refusals, healthOf, clock);
  const shaking = createServer(tlsOptions(security.certificates.current), (socket) => {
    socket.on("error", () => socket.destroy());
    const caller = callerBehind(socket);
    const standing = standingOf(caller, security, limits.operatorsMs, clock);
    if (standing.kind === "stranger" && security.strict) {
      refusals.add(standing.fault, caller.peer);
      socket.destroy();
    } else if (
      standing.kind === "listed"
        ? limits.shaken(socket, "listed", standing.livesMs, standing.name)
        : limits.shaken(socket, "stranger")
    ) {
      if (standing.kind === "listed") injector.injectConnection(socket);
      else receiveStranger(socket, caller);
    }
  });
  shaking.on("tlsClientError", (error: NodeJS.ErrnoException, socket) => {
    if (error.code === "ECONNRESET" && limits.endedOne()) return;
    refusals.add(handshakeFault(error), addressOf(socket));
  });
  const listener = createPort({ pauseOnConnect: true }, (socket) => {
    sockets.add(socket);
    limits.receive(socket, "shaking", () => shaking.emit("connection", socket));
  });
  const forget = security.certificates.onChange((material) => shaking.setSecureContext(tlsOptions(material)));
  let chosen: number;
  try {
    chosen = await listenAt(listener, { host: named(host), port });
  } catch (thrown) {
    forget();
    throw thrown;
  }
  return {
    port: chosen,
    stop: () => {
      forget();
      listener.close();
    },
    cut: () => sockets.cut(),
  };
}

/** Opens the server that strangers meet (stranger-door.ts). @returns the function that takes a stranger's connection */
function strangers(
  security: TlsSecurity,
  refusals: RefusalLog,
  healthOf: PortParts["healthOf"],
  clock: Clock,
): (socket: TLSSocket, caller: Connected) => void {
  const callers = new Map<string, Connected>();
  const judgeStranger: Judge = ({ socket }, path) => {
    const peer = `${socket?.remoteAddress}:${socket?.remotePort}`;
    const caller = callers.get(peer) ?? { peer, certificate: undefined, stranger: undefined };
    const fault = judge(path, caller, security);
    if (fault !== undefined) refusals.add(fault, peer, path);
    return fault;
  };
  const door = openStrangerDoor(judgeStranger, healthOf, clock);
  return (socket, caller) => {
    callers.set(caller.peer, caller);
    socket.once("close", () => {
      if (callers.get(caller.peer) === caller) callers.delete(caller.peer);
    });
    door.receive(socket);
  };
}

const tlsOptions = ({ ca, certificate, key }: KeyMaterial): TlsOptions => ({
  ca,
  cert: certificate,
  key,
  minVersion: TLS_VERSION,
  requestCert: true,
  // a caller without a good certificate is refused at its calls, with the reason: stranger-door.ts
  rejectUnauthorized: false,
  ALPNProtocols: ["h2"],
  handshakeTimeout: HANDSHAKE_MS,
  // a resumed session would keep the verdict on its certificate, even if the CA was replaced since then
  secureOptions: constants.SSL_OP_NO_TICKET,
});

const addressOf = ({ remoteAddress: address, remotePort }: TLSSocket): string =>
  address === undefined ? "an unknown address (the connection has closed)" : `${address}:${remotePort}`;

/** Identifies the caller that has shaken hands. */
function callerBehind(socket: TLSSocket): Connected {
  const peer = `${socket.remoteAddress}:${socket.remotePort}`;
  // Node returns an empty object when no certificate was shown, although the type says otherwise
  const shown: Partial<PeerCertificate> | null = socket.getPeerCertificate();
  const certificate = shown?.raw === undefined ? undefined : socket.getPeerCertificate();
  return socket.authorized
    ? { peer, certificate, stranger: undefined }
    : { peer, certificate: undefined, stranger: { problem: String(socket.authorizationError), certificate } };
}

type Standing =
  | { readonly kind: "listed"; readonly livesMs: number; readonly name: string }
  | { readonly kind: "stranger"; readonly fault: MigrationFault };

/**
 * Tells whether a caller is listed or a stranger. The connection of a listed caller ends when its certificate expires.
 * The connection of an operator that is no peer ends after `operatorsMs` milliseconds at the latest: by then another
 * CA, or another certificate, may count.
 */
function standingOf(caller: Connected, security: TlsSecurity, operatorsMs: number, clock: Clock): Standing {
  const { peer, certificate } = caller;
  if (certificate === undefined) return { kind: "stranger", fault: untrusted(peer, caller.stranger) };
  const names = namesOf(certificate);
  const nameOn = (list: TlsSecurity["peers"]): string | undefined =>
    list === "any" ? (names[0] ?? certificate.fingerprint256) : listedName(names, list);
  const peerName = nameOn(security.peers);
  const name = peerName ?? nameOn(security.operators);
  if (name === undefined)
    return { kind: "stranger", fault: notListed(`${showNames(names)} at ${peer}`, "peers", security) };
  const validMs = Date.parse(certificate.valid_to) - clock.nowUs() / 1000;
  return { kind: "listed", name, livesMs: peerName === undefined ? Math.min(validMs, operatorsMs) : validMs };
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
