/**
 * Decides who may call what over TLS. A server takes every connection whose handshake succeeds, and refuses each *call*
 * whose caller has no good certificate or is not on the list for the service. Only in this way does the caller learn
 * why it is refused (docs/design/security.md#certificates-are-judged-at-each-call). A service that is not in SERVICES
 * is refused. A call is refused before its first message is read. Callers that are on no list at all meet
 * listen/stranger-door.ts, which judges by the same function.
 */
import type { PeerCertificate } from "node:tls";
import { ServerInterceptingCall, type ServerInterceptor } from "@grpc/grpc-js";
import { MigrationFault } from "../../fault.ts";
import type { Caller } from "../link.ts";
import { chainProblem, listedName, namesOf, showNames } from "../tls/certificate-names.ts";
import { type LinkSecurity, notListed, type TlsSecurity, tlsText } from "../tls/security.ts";
import { refusing } from "./call-limits.ts";

/** Who may call a service: the callers on one of the two lists of the settings, or any caller. */
type List = "peers" | "operators" | "anybody";

const SERVICES: ReadonlyMap<string, List> = new Map([
  ["ferry.v1.MigrationService", "operators"],
  ["grpc.reflection.v1.ServerReflection", "operators"],
  ["grpc.reflection.v1alpha.ServerReflection", "operators"],
  ["ferry.v1.TransferService", "peers"],
  ["ferry.v1.DestinationService", "peers"],
  // it tells only whether the agent is up, to programs that watch over the host
  ["grpc.health.v1.Health", "anybody"],
]);

/** True for a method that operators or any caller may call, and false for one of peers or of an unknown service. */
export function isForOperators(path: string): boolean {
  const list = listOf(path);
  return list !== undefined && list !== "peers";
}

const listOf = (path: string): List | undefined => SERVICES.get(path.split("/")[1] ?? "");

/** What is known of a caller without a good certificate. */
export interface Stranger {
  /** OpenSSL's code for what is wrong. */
  readonly problem: string;
  /** The certificate that the caller has shown; undefined when it has shown none. */
  readonly certificate: PeerCertificate | undefined;
}

/** What grpc-js tells of a caller. It has the caller's certificate only when the chain of the certificate is good. */
type Auth = ReturnType<ServerInterceptingCall["getAuthContext"]>;

/**
 * Makes the interceptor that refuses the calls which their callers may not make.
 * @param refused is told of each refused call
 */
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

/** A caller, as far as its connection tells. */
export interface Connected {
  /** The caller's address. */
  readonly peer: string;
  /** The caller's certificate; undefined when it has none whose chain is good. */
  readonly certificate: PeerCertificate | undefined;
  /** What is known of the caller where `certificate` is undefined; the message of a refusal says it. */
  readonly stranger: Stranger | undefined;
}

/** Judges a call of the method `path`. @returns why the call is refused; undefined for a call that is let in */
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

/** Makes the fault of a caller that has no certificate with a good chain. */
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

/**
 * Describes the caller of a call that was let in, for the log.
 * @param list where a certificate has several names, the caller is described by the name that is on this list
 */
export function callerOf(auth: Auth, security: TlsSecurity, list: "peers" | "operators"): string {
  const names = auth.sslPeerCertificate === undefined ? [] : namesOf(auth.sslPeerCertificate);
  return tlsText(nameAmong(names, security[list]));
}

/** Chooses the name of a caller from the names of its certificate: the name that is on the list, or else the first. */
export const nameAmong = (names: readonly string[], list: readonly string[] | "any"): string | undefined =>
  (list === "any" ? undefined : listedName(names, list)) ?? names[0];

/**
 * True if `tls.peers` lets other agents than this caller call as well. This agent's own names do not count. In clear
 * the answer is false, since no caller is known there.
 */
export function hasOtherPeers({ names }: Caller, security: LinkSecurity | undefined): boolean {
  if (security?.kind !== "tls" || security.peers === "any") return false;
  const known = new Set([...names, ...namesOf(security.certificates.current.own.toLegacyObject())]);
  return security.peers.some((peer) => !known.has(peer.toLowerCase()));
}
