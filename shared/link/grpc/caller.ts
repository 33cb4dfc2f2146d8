/** Who calls a server: for its log, and for what it may ask. */
import { checkServerIdentity } from "node:tls";
import type { ServerUnaryCall, ServerWritableStream } from "@grpc/grpc-js";
import { parseAddress, withoutZone } from "../../address.ts";
import { MigrationFault } from "../../fault.ts";
import { callerOf, nameAmong } from "../callers/authorise.ts";
import type { Caller } from "../link.ts";
import { isLocal } from "../listen/unix-listener.ts";
import { namesOf, showNames } from "../tls/certificate-names.ts";
import type { LinkSecurity } from "../tls/security.ts";

/** What grpc-js shows of every call. */
export type AnyCall = Pick<ServerUnaryCall<unknown, unknown> | ServerWritableStream<unknown, unknown>, "getPeer"> & {
  getAuthContext(): ReturnType<ServerUnaryCall<unknown, unknown>["getAuthContext"]>;
};

/** @param list whose names are meant where a certificate has several */
export function callerText(call: AnyCall, security: LinkSecurity | undefined, list: "peers" | "operators"): string {
  const peer = call.getPeer();
  // of a unix socket: the user, and "process" and its number as address and port
  if (isLocal(peer)) return peer.replace(/process:(\d+)$/, "process $1");
  return security?.kind === "tls" ? `${callerOf(call.getAuthContext(), security, list)} at ${peer}` : `${peer}, no TLS`;
}

/** The peer that makes a call. One that calls in clear, or at a unix socket, has proven no name. */
export function peerOf(call: AnyCall, security: LinkSecurity | undefined): Caller {
  const peer = call.getPeer();
  const certificate = security?.kind === "tls" ? call.getAuthContext().sslPeerCertificate : undefined;
  const names = certificate === undefined ? [] : namesOf(certificate);
  // the number of a port or a process is another one at each connection
  const name = nameAmong(names, security?.kind === "tls" ? security.peers : "any") ?? peer.replace(/:\d+$/, "");
  return { name, names, text: callerText(call, security, "peers") };
}

/**
 * The address that a source says it is dialled at must be of its own certificate's names. A peer cannot make this agent
 * dial another one's, or look by it for open ports. @throws MigrationFault `not-authorised`
 */
export function checkSourceAddress(text: string, call: AnyCall, security: LinkSecurity | undefined): void {
  if (security?.kind !== "tls") return;
  const certificate = call.getAuthContext().sslPeerCertificate;
  const address = parseAddress(text);
  if (certificate === undefined) return;
  if (address.kind === "tcp" && checkServerIdentity(withoutZone(address.host), certificate) === undefined) return;
  const who = showNames(namesOf(certificate));
  throw new MigrationFault(
    "not-authorised",
    `The source wants to be dialled at ${text}; its certificate is for ${who}`,
    {
      advice:
        "Set advertise of the source agent to an address in its certificate, or give it a certificate with that name",
    },
  );
}
