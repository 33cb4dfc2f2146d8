/**
 * Who may call what over TLS. A server takes every connection whose handshake succeeds and refuses each *call* whose caller
 * has no good certificate, or is not on the list for that service: only so the caller learns why (decision 0020). What is
 * not in SERVICES is refused. A call is refused before its first message is read. Callers on no list at all meet
 * stranger-door.ts, which judges by the same function.
 */
import type { PeerCertificate } from "node:tls";
import { ServerInterceptingCall, type ServerInterceptor } from "@grpc/grpc-js";
import { MigrationFault } from "../../fault.ts";
import type { Caller } from "../link.ts";
import { chainProblem, listedName, namesOf, showNames } from "../tls/certificate-names.ts";
import { type LinkSecurity, notListed, type TlsSecurity, tlsText } from "../tls/security.ts";
import { refusing } from "./call-limits.ts";

type List = "peers" | "operators" | "anybody";

const SERVICES: ReadonlyMap<string, List> = new Map([
  ["ferry.v1.MigrationService", "operators"],
  ["grpc.reflection.v1.ServerReflection", "operators"],
  ["grpc.reflection.v1alpha.ServerReflection", "operators"],
  ["ferry.v1.TransferService", "peers"],
  ["ferry.v1.DestinationService", "peers"],
  // tells up or down, to whatever watches over the host
  ["grpc.health.v1.Health", "anybody"],
]);

/** Whether a method is for operators, or for anybody; unknown services are not. */
export function isForOperators(path: string): boolean {
  const list = listOf(path);
  return list !== undefined && list !== "peers";
}

const listOf = (path: string): List | undefined => SERVICES.get(path.split("/")[1] ?? "");

/** What is known of a connection without a good certificate. */
export interface Stranger {
  /** OpenSSL's code. */
  readonly problem: string;
  /** None was shown when undefined. */
  readonly certificate: PeerCertificate | undefined;
}

/** What a caller has shown; grpc-js gives its certificate only when its chain is good. */
type Auth = ReturnType<ServerInterceptingCall["getAuthContext"]>;

export function authorising(
  security: TlsSecurity,
  refused: (fault: MigrationFault, peer: string, path: string) => void,
): ServerInterceptor {
  return ({ path }, call) => {
    const peer = call.getPeer();
    const { sslPeerCertificate: certificate } = call.getAuthContext();
    const fault = judge(path, { peer, certificate, stranger: undefined }, security);
    if (fault === undefined) return new ServerInterceptingCall(call);
    refused(fault, peer, path);
    return refusing(call, fault);
  };
}

/** Whoever calls, as far as the connection tells. */
export interface Connected {
  /** Address. */
  readonly peer: string;
  /** One whose chain is good. */
  readonly certificate: PeerCertificate | undefined;
  /** For the message where there is none. */
  readonly stranger: Stranger | undefined;
}

/** @returns why the call is refused; undefined for one that is let in */
export function judge(
  path: string,
  { peer, certificate, stranger }: Connected,
  security: TlsSecurity,
): MigrationFault | undefined {
  const list = listOf(path);
  if (list === "anybody") return undefined;
  if (certificate === undefined) return untrusted(peer, stranger);
  const names = namesOf(certificate);
  if (list === undefined)
    return new MigrationFault("not-authorised", `${path} is open to nobody over TLS`, {
      advice: "Call another method",
    });
  const allowed = security[list];
  return allowed === "any" || listedName(names, allowed) === undefined
    ? notListed(`${showNames(names)} at ${peer}`, list, security)
    : undefined;
}

export function untrusted(peer: string, stranger: Stranger | undefined): MigrationFault {
  if (stranger?.certificate === undefined)
    return new MigrationFault("peer-untrusted", `The caller at ${peer} showed no certificate`, {
      advice: "Give the caller a certificate and its key: tls.certificate and tls.key, --tls-certificate and --tls-key",
    });
  const { certificate, problem } = stranger;
  const who = showNames(namesOf(certificate));
  const what = chainProblem(problem, certificate);
  return new MigrationFault("peer-untrusted", `The certificate of ${who} at ${peer} ${what}`, {
    advice: "Give the caller a certificate that is valid now and signed by a CA of tls.ca of the agent that refuses",
  });
}

/** For the log of a call that was let in. @param list whose names are meant where a certificate has several */
export function callerOf(auth: Auth, security: TlsSecurity, list: "peers" | "operators"): string {
  const names = auth.sslPeerCertificate === undefined ? [] : namesOf(auth.sslPeerCertificate);
  return tlsText(nameAmong(names, security[list]));
}

/** The name that is meant of several in a certificate: the one on the list, else the first. */
export const nameAmong = (names: readonly string[], list: readonly string[] | "any"): string | undefined =>
  (list === "any" ? undefined : listedName(names, list)) ?? names[0];

/**
 * May others than this caller call as well, by tls.peers? This agent's own names do not count. In clear nobody is
 * known.
 */
export function hasOtherPeers({ names }: Caller, security: LinkSecurity | undefined): boolean {
  if (security?.kind !== "tls" || security.peers === "any") return false;
  const known = new Set([...names, ...namesOf(security.certificates.current.own.toLegacyObject())]);
  return security.peers.some((peer) => !known.has(peer.toLowerCase()));
}
