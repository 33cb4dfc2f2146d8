/** Finds out who calls a server: for the server's log, and for deciding what the caller may ask. */
import { checkServerIdentity } from "node:tls";
import type { ServerUnaryCall, ServerWritableStream } from "@grpc/grpc-js";
import { parseAddress, withoutZone } from "../../address.ts";
import { MigrationFault } from "../../fault.ts";
import { callerOf, nameAmong } from "../callers/authorise.ts";
import type { Caller } from "../link.ts";
import { isLocal } from "../listen/unix-listener.ts";
import { namesOf, showNames } from "../tls/certificate-names.ts";
import type { LinkSecurity } from "../tls/security.ts";

/** The part of a call that identifies its caller. Every kind of call of grpc-js has this part. */
export type AnyCall = Pick<ServerUnaryCall<unknown, unknown> | ServerWritableStream<unknown, unknown>, "getPeer"> & {
  getAuthContext(): ReturnType<ServerUnaryCall<unknown, unknown>["getAuthContext"]>;
};

/**
 * Describes a caller for the log.
 * @param list where a certificate has several names, the caller is described by the name that is on this list
 */
export function callerText(call: AnyCall, security: LinkSecurity | undefined, list: "peers" | "operators"): string {
  const peer = call.getPeer();
  // a unix socket has the user and the word "process" as its address, and the number of the process as its port
  if (isLocal(peer)) return peer.replace(/process:(\d+)$/, "process $1");
  return security?.kind === "tls" ? `${callerOf(call.getAuthContext(), security, list)} at ${peer}` : `${peer}, no TLS`;
}

/** Identifies the peer that makes a call. A peer that calls in clear, or at a unix socket, has proven no name. */
export function peerOf(call: AnyCall, security: LinkSecurity | undefined): Caller {
  const peer = call.getPeer();
  const certificate = security?.kind === "tls" ? call.getAuthContext().sslPeerCertificate : undefined;
  const names = certificate === undefined ? [] : namesOf(certificate);
  // the number of the port or process is left out, since it is another one for each connection
  const name = nameAmong(names, security?.kind === "tls" ? security.peers : "any") ?? peer.replace(/:\d+$/, "");
  return { name, names, text: callerText(call, security, "peers") };
}

/**
 * Checks that the address at which a source wants to be dialled is among the names of the source's own certificate.
 * Otherwise a peer could make this agent dial a third agent, or look for open ports. Without TLS nothing is checked.
 * @throws MigrationFault `not-authorised`
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
