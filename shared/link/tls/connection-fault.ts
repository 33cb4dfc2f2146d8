/** Explains why a connection to a server was never made, where TLS or a unix socket is the reason. */
import { type FaultCode, MigrationFault } from "../../fault.ts";
import { chainProblem, codeOfWords } from "./certificate-names.ts";

/** A server that is being called. */
export interface Dialled {
  readonly address: string;
  /** Set when the server's chain is good, but the server is not the one that was meant, or not an allowed one. */
  refused: MigrationFault | undefined;
}

/** Explains why a unix socket takes no connection. */
function socketFault(cause: Error, lost: FaultCode, address: string): MigrationFault | undefined {
  switch (/connect (E[A-Z]+) /.exec(cause.message)?.[1]) {
    case "EACCES":
      return new MigrationFault(lost, `User ${process.getuid?.()} may not use the socket ${address}`, {
        cause,
        advice: "Be root, the agent's user or, at the socket of an agent's operators, a member of its operators.group",
      });
    case "ENOENT":
    case "ECONNREFUSED":
      return new MigrationFault(lost, `No agent listens at ${address}`, {
        cause,
        advice: "Start the agent there, or name another one: --agent or FERRY_AGENT of ferry; --to for a destination",
      });
    default:
      return undefined;
  }
}

/**
 * Explains a failed connection by the text of its error, because grpc-js keeps nothing of the last failure but the text
 * that OpenSSL or the kernel gave it.
 * @param lost the code of the fault where no agent has answered
 * @returns undefined when neither TLS nor a unix socket is the reason
 */
export function connectionFault(error: Error, lost: FaultCode, dialled: Dialled): MigrationFault | undefined {
  const { address, refused } = dialled;
  if (refused !== undefined) return refused;
  const { message } = error;
  const socket = address.startsWith("unix:") ? socketFault(error, lost, address) : undefined;
  if (socket !== undefined) return socket;
  const code = codeOfWords(message);
  if (code !== undefined)
    return new MigrationFault("peer-untrusted", `The certificate of ${address} ${chainProblem(code)}`, {
      cause: error,
      advice: "Look at the certificate there, and whether tls.ca (--tls-ca) here has the CA that signed it",
    });
  if (/wrong version number|packet length too long|http request/.test(message))
    return new MigrationFault("peer-untrusted", `${address} does not speak TLS`, {
      cause: error,
      advice: "Give the agent there tls.ca, tls.certificate and tls.key, or call it without them",
    });
  const words = /:SSL routines:[^:]*:([^:]+)/.exec(message)?.[1];
  if (words !== undefined)
    return new MigrationFault("peer-untrusted", `The TLS handshake with ${address} failed: ${words}`, { cause: error });
  if (message.includes("Failed to connect"))
    return new MigrationFault(lost, `${address} closed the connection before it said anything`, {
      cause: error,
      advice:
        "If it expects TLS, call it with a certificate (tls.certificate and tls.key, --tls-certificate and --tls-key); else see that the port is an agent's",
    });
  return undefined;
}
