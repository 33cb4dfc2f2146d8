/**
 * The addresses at which an agent listens or is dialled: "host:port", "[v6]:port", "[v6%zone]:port" or "unix:PATH".
 * Everything here is pure: no name is looked up.
 */
import { MigrationFault } from "./fault.ts";
import { socketPathMistake } from "./socket-path.ts";

export type AgentAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

/** Reads an address. @throws MigrationFault `invalid-argument` when the text is no address of an agent */
export function parseAddress(text: string): AgentAddress {
  if (text.startsWith("unix:/") && text.length > "unix:/".length) return unixAddress(text.slice("unix:".length));
  const parts = /^(?:\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~-]+)?)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/.exec(text);
  const host = parts?.[1] ?? parts?.[2];
  const port = Number(parts?.[3]);
  if (host === undefined || port > 65535)
    throw new MigrationFault("invalid-argument", `${JSON.stringify(text)} is not an address of an agent`, {
      advice: `Write "host:port", "[IPv6]:port", "[IPv6%interface]:port" or "unix:/path/of/socket"`,
    });
  return { kind: "tcp", host, port };
}

function unixAddress(path: string): AgentAddress {
  const mistake = socketPathMistake(path);
  if (mistake === undefined) return { kind: "unix", path };
  throw new MigrationFault("invalid-argument", `The path of a socket ${mistake}`, { advice: "Choose a shorter path" });
}

/**
 * Finds the zone of an IPv6 address: "eth0" of "fe80::1%eth0". A zone names an interface of the host that dials or
 * listens, so no certificate has one.
 * @returns undefined for a host without a zone
 */
export const zoneOf = (host: string): string | undefined => host.split("%")[1];

export const withoutZone = (host: string): string => host.split("%")[0] ?? host;

/** True when what is sent to the address stays on this host. */
export const isLoopback = (address: AgentAddress): boolean =>
  address.kind === "unix" ||
  address.host === "localhost" ||
  withoutZone(address.host) === "::1" ||
  /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(address.host);

/** True when the address stands for every address of the host. No agent can dial such an address. */
export const isWildcard = (address: AgentAddress): boolean =>
  address.kind === "tcp" && (address.host === "0.0.0.0" || /^[0:]*::[0:]*$/.test(withoutZone(address.host)));
