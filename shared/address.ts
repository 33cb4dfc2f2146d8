/** Where an agent listens or is dialled: "host:port", "[v6]:port" or "unix:PATH". Pure: nothing is looked up. */
import { MigrationFault } from "./fault.ts";

export type AgentAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

/** @throws MigrationFault invalid-argument */
export function parseAddress(text: string): AgentAddress {
  if (text.startsWith("unix:/") && text.length > "unix:/".length)
    return { kind: "unix", path: text.slice("unix:".length) };
  const parts = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/.exec(text);
  const host = parts?.[1] ?? parts?.[2];
  const port = Number(parts?.[3]);
  if (host === undefined || port > 65535)
    throw new MigrationFault("invalid-argument", `${JSON.stringify(text)} is not an address of an agent`, {
      advice: `Write "host:port", "[IPv6]:port" or "unix:/path/of/socket"`,
    });
  return { kind: "tcp", host, port };
}

/** Does what is sent there stay on this host? */
export const isLoopback = (address: AgentAddress): boolean =>
  address.kind === "unix" ||
  address.host === "localhost" ||
  address.host === "::1" ||
  /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(address.host);

/** Is it every address of the host, and thus none that can be dialled? */
export const isWildcard = (address: AgentAddress): boolean =>
  address.kind === "tcp" && (address.host === "0.0.0.0" || /^[0:]*::[0:]*$/.test(address.host));
