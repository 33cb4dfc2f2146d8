/**
 * The addresses at which an agent must not serve other agents. An address is checked when the settings are read
 * (shared/runtime/config/config-network.ts), and again before it is bound (shared/link/listen/bind.ts).
 */
import type { AgentAddress } from "./address.ts";

/** How an agent speaks over TCP: with TLS, in clear because `tls.insecure` says so, or not at all. */
export type Serving = "tls" | "insecure" | "none";

/** The advice where an agent would speak over TCP without TLS and without `tls.insecure`. */
export const IN_CLEAR_ADVICE =
  "Set tls.ca, tls.certificate and tls.key; tls.insecure only where every user of both hosts and of the network between them may read and take the guests";

/**
 * Tells why an agent must not serve other agents at an address.
 * @returns `what` is the end of a sentence that begins with the address; undefined when the address may be served
 */
export function servingMistake(
  { kind }: AgentAddress,
  serving: Serving,
): { readonly what: string; readonly advice: string } | undefined {
  if (kind === "tcp" && serving === "none")
    return { what: "would serve anybody who reaches it: there is no TLS", advice: IN_CLEAR_ADVICE };
  if (kind === "unix" && serving === "tls")
    return {
      what: "would serve other agents without TLS and tls.peers",
      advice: "Remove it from listen: operators of this host have a socket of their own (operators.socket)",
    };
  return undefined;
}
