/**
 * How the two ends of a connection prove who they are: by mutual TLS 1.3, or not at all where no proof is needed
 * (docs/design/security.md). This file has what both ends share, and what a caller asks of a server. What a server asks
 * of its callers is in callers/authorise.ts.
 */
import { isIP } from "node:net";
import { checkServerIdentity, type PeerCertificate, type SecureContext } from "node:tls";
import { type ChannelCredentials, type ChannelOptions, credentials } from "@grpc/grpc-js";
import { isLoopback, parseAddress, withoutZone } from "../../address.ts";
import { MigrationFault } from "../../fault.ts";
import type { CommonConfig } from "../../runtime/config/config.ts";
import { Certificates, type KeyMaterial } from "../../runtime/files/certificates.ts";
import { untrustedBecause } from "../../runtime/files/trusted-path.ts";
import { LineBudget } from "../../runtime/log/line-budget.ts";
import { budgeted, type Logger } from "../../runtime/log/log.ts";
import { IN_CLEAR_ADVICE } from "../../serving.ts";
import { listedName, namesOf, showNames } from "./certificate-names.ts";
import type { Dialled } from "./connection-fault.ts";

/** The unix sockets that may be called. */
interface SocketRule {
  /**
   * The paths of the sockets; `any` for an operator, who names the agent himself. In clear, the sockets of root and of
   * the agent's own user may be called too.
   * @default none
   */
  readonly sockets?: readonly string[] | "any";
}

/**
 * No TLS. Unix sockets are used in clear; TCP, the loopback included, only where the setting `tls.insecure` says so.
 */
export interface ClearSecurity extends SocketRule {
  readonly kind: "clear";
  /** Whether TCP is used in clear. */
  readonly insecure: boolean;
  readonly log?: Logger;
}

/** Mutual TLS over TCP, the loopback included. No other agent is served at a unix socket. */
export interface TlsSecurity extends SocketRule {
  readonly kind: "tls";
  readonly certificates: {
    readonly current: KeyMaterial;
    onChange(listener: (material: KeyMaterial) => void): () => void;
  };
  /** The names of the agents that may call and be called; `any` for an operator, who goes by the address alone. */
  readonly peers: readonly string[] | "any";
  /** The names of the operators that may call. */
  readonly operators: readonly string[];
  /** The peers that may be called for one guest or one migration. @default all peers */
  readonly only?: OnlyPeers;
  /**
   * True if callers without a listed certificate are cut without a word, before they speak HTTP/2 (`tls.strict`).
   * @default false
   */
  readonly strict?: boolean;
  /** The names that servers called from here have shown, by address. At most SHOWN_MAX are kept. */
  readonly shown: Map<string, string>;
  readonly log?: Logger;
}

/** The only servers that may be called: those with one of these names. */
interface OnlyPeers {
  readonly names: readonly string[];
  /** Makes the fault of a server that shows none of the names. `who` describes the server, for people. */
  readonly refuse: (who: string) => MigrationFault;
}

export type LinkSecurity = ClearSecurity | TlsSecurity;

/** The security of a link for which none is given: no TLS, and unix sockets only. */
export const UNIX_ONLY: ClearSecurity = { kind: "clear", insecure: false };

/** The most addresses whose servers' names are remembered. One more makes all of them forgotten. */
const SHOWN_MAX = 64;
/**
 * The server name of a connection to an IP address: RFC 6066 allows no address as a server name, and Node warns of one.
 * No server chooses anything by this name.
 */
const NO_SERVER_NAME = "ferry.invalid";

/**
 * Opens the security of an agent, from its settings.
 * @param sockets the unix sockets of other agents that the setting `destinations.allowed` names
 * @throws MigrationFault `configuration`
 */
export function openSecurity(config: CommonConfig, log: Logger, sockets: readonly string[] = []): LinkSecurity {
  const { tls } = config;
  if (tls === undefined) {
    if (config.tlsInsecure)
      log.warn(
        { listen: config.listen },
        "TLS IS OFF (tls.insecure): anybody on the network, and every user of this host, can read and take the guests",
      );
    return { kind: "clear", insecure: config.tlsInsecure, sockets, log };
  }
  const certificates = new Certificates(tls.files, log);
  const { peers, operators, strict } = tls;
  if (peers.length === 0) log.warn("tls.peers is empty: no agent may call this one, nor is called by it");
  // a server that is not accepted is dialled again and again, so its lines are limited
  const limited = budgeted(log, new LineBudget(20));
  return { kind: "tls", certificates, peers, operators, sockets, strict, shown: new Map(), log: limited };
}

/** Makes the security of an operator, who calls one agent by its address for as long as a command takes. */
export const operatorSecurity = (current: KeyMaterial): TlsSecurity => ({
  kind: "tls",
  certificates: { current, onChange: () => () => {} },
  peers: "any",
  operators: [],
  sockets: "any",
  shown: new Map(),
});

/** The security of an operator without a certificate. The agent decides whether it serves such an operator. */
export const OPERATOR_IN_CLEAR: ClearSecurity = { kind: "clear", insecure: true, sockets: "any" };

/** How a server is called over TLS. */
export interface TlsCall {
  readonly context: SecureContext;
  /** The name of the server that is asked for. */
  readonly serverName: string;
  /** Judges the certificate of the server. @returns why the server is not accepted */
  readonly verify: (certificate: PeerCertificate) => Error | undefined;
}

/**
 * What one connection to an address needs: the address with what becomes of the dialling, and the way it is secured. No
 * field is particular to one implementation of a client.
 */
export interface CallTerms {
  readonly dialled: Dialled;
  /** Undefined where the address is called in clear. */
  readonly tls: TlsCall | undefined;
}

/**
 * Returns how to call an address. Each connection has terms of its own.
 * @throws MigrationFault `configuration` for an address that must not be called in clear, `not-authorised` for a unix
 *   socket that may not be called, and the fault of `only` for a unix socket, since a socket shows no name
 */
export function termsFor(text: string, security: LinkSecurity): CallTerms {
  const address = parseAddress(text);
  const dialled: Dialled = { address: text, refused: undefined };
  if (security.kind === "tls" && address.kind === "unix" && security.only !== undefined)
    throw security.only.refuse(`Whoever listens at ${text}, without TLS,`);
  if (security.kind === "clear" || address.kind === "unix") {
    if (address.kind === "unix") checkSocket(address.path, security);
    else if (security.kind === "clear" && !security.insecure)
      throw new MigrationFault("configuration", `${text} would be called in clear: there is no TLS here`, {
        advice: IN_CLEAR_ADVICE,
      });
    return { dialled, tls: undefined };
  }
  // no certificate has a zone, which is this host's own name for the way to the other host
  const host = withoutZone(address.host);
  const verify = (certificate: PeerCertificate): Error | undefined => {
    dialled.refused = distrust(text, host, certificate, security);
    if (dialled.refused !== undefined) security.log?.warn({ fault: dialled.refused, peer: text }, "refused");
    return dialled.refused;
  };
  const serverName = isIP(host) === 0 ? host : NO_SERVER_NAME;
  return { dialled, tls: { context: security.certificates.current.context, serverName, verify } };
}

/**
 * Returns how gRPC's library is to call an address.
 * @throws the faults of termsFor()
 */
export function callWith(
  text: string,
  security: LinkSecurity,
): { credentials: ChannelCredentials; options: ChannelOptions; dialled: Dialled } {
  const { dialled, tls } = termsFor(text, security);
  if (tls === undefined) return { credentials: credentials.createInsecure(), options: {}, dialled };
  return {
    credentials: credentials.createFromSecureContext(tls.context, {
      checkServerIdentity: (_, certificate) => tls.verify(certificate),
    }),
    options: tls.serverName === NO_SERVER_NAME ? { "grpc.ssl_target_name_override": NO_SERVER_NAME } : {},
    dialled,
  };
}

/**
 * Checks that a unix socket may be called: the program that listens there gets what is sent, which is guests and
 * tokens.
 * @throws MigrationFault `not-authorised`
 */
function checkSocket(path: string, { kind, sockets = [] }: LinkSecurity): void {
  if (sockets === "any" || sockets.includes(path)) return;
  const mistake =
    kind === "tls" ? "is a socket, at which neither TLS nor tls.peers says who listens" : untrustedBecause(path);
  if (mistake === undefined) return;
  throw new MigrationFault("not-authorised", `unix:${path} is not called: it ${mistake}`, {
    advice: "Call the agent by an address of its host, or name this socket in destinations.allowed of the source agent",
  });
}

/**
 * Judges a server whose certificate has a good chain: it must be the server that was called, and it must be allowed.
 * @returns why the server is not accepted; undefined if it is accepted
 */
function distrust(
  address: string,
  host: string,
  certificate: PeerCertificate,
  security: TlsSecurity,
): MigrationFault | undefined {
  const names = namesOf(certificate);
  const shown = showNames(names);
  if (checkServerIdentity(host, certificate) !== undefined)
    return new MigrationFault("peer-untrusted", `The certificate of ${address} is for ${shown}, not for ${host}`, {
      advice: `Call it by a name in its certificate, or give it one with ${host} among its alternative names`,
    });
  const { peers } = security;
  const name = peers === "any" ? names[0] : listedName(names, peers);
  if (name === undefined) return notListed(`${shown} at ${address}`, "peers", security);
  const { only } = security;
  if (only !== undefined && listedName(names, only.names) === undefined) return only.refuse(`${shown} at ${address}`);
  if (security.shown.size >= SHOWN_MAX) security.shown.clear();
  security.shown.set(address, name);
  return undefined;
}

/** Makes the fault of a stranger with a good certificate. It does not tell the stranger which names are on the list. */
export function notListed(who: string, list: "peers" | "operators", security: TlsSecurity): MigrationFault {
  const empty = security[list].length === 0;
  const message = empty
    ? `${who} may not do this: tls.${list} of the agent is empty, which allows nobody over TLS`
    : `${who} may not do this: no name of its certificate is in tls.${list} of the agent`;
  const advice = `Add a name of its certificate to tls.${list}, or use a certificate with a name that is listed`;
  return new MigrationFault("not-authorised", message, { advice });
}

/** Describes, for the operator and the log, how the connection to an address that was called is secured. */
export function securityOf(text: string, security: LinkSecurity = UNIX_ONLY): string {
  const address = parseAddress(text);
  if (address.kind === "unix") return "none (unix socket)";
  if (security.kind === "tls") return tlsText(security.shown.get(text));
  return isLoopback(address) ? "none (loopback)" : "none (tls.insecure)";
}

export const tlsText = (name: string | undefined): string => `TLS 1.3, peer ${name ?? "unknown"}`;
