/** Checks which destinations an operator may name, by the setting `destinations.allowed`. */
import { BlockList, isIP } from "node:net";
import { type AgentAddress, parseAddress, withoutZone } from "../../shared/address.ts";
import { MigrationFault } from "../../shared/fault.ts";

type Tcp = Extract<AgentAddress, { kind: "tcp" }>;

/** One entry of the setting, parsed. */
type Entry =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "host"; readonly matches: (host: string) => boolean; readonly port: number | undefined };

const invalid = (text: string): MigrationFault =>
  new MigrationFault("configuration", `destinations.allowed has ${JSON.stringify(text)}, which names no destination`, {
    advice: `Write "beta", "beta:7412", "*.example.net", "192.0.2.0/24", "[2001:db8::1]:7412" or "unix:/path/of/socket"`,
  });

export class AllowedDestinations {
  private readonly entries: readonly Entry[];

  /** @throws MigrationFault `configuration` for an entry that names nothing */
  constructor(texts: readonly string[]) {
    this.entries = texts.map(readEntry);
  }

  /** The paths of the unix sockets among the entries. */
  get sockets(): readonly string[] {
    return this.entries.flatMap((entry) => (entry.kind === "unix" ? [entry.path] : []));
  }

  /**
   * Checks an address that an operator has named. Without entries every address may be named: over TLS the list of
   * peers says which agent may answer there.
   * @throws MigrationFault `not-authorised`; `invalid-argument` for a text that is no address
   */
  check(text: string): void {
    const address = parseAddress(text);
    if (this.entries.length === 0 || this.entries.some((entry) => matches(entry, address))) return;
    throw new MigrationFault("not-authorised", `${text} is not among the destinations of this agent`, {
      guestNow: "the guest runs here, and nothing was touched",
      advice: "Name a destination that destinations.allowed of the source agent has, or add this one there",
    });
  }
}

function matches(entry: Entry, address: AgentAddress): boolean {
  if (entry.kind === "unix") return address.kind === "unix" && address.path === entry.path;
  if (address.kind === "unix") return false;
  return (entry.port === undefined || entry.port === address.port) && entry.matches(hostOf(address));
}

const hostOf = ({ host }: Tcp): string => withoutZone(host).toLowerCase().replace(/\.$/, "");

function readEntry(text: string): Entry {
  if (text.startsWith("unix:")) return readSocket(text);
  const network = /^([0-9A-Fa-f.:]+)\/(\d{1,3})$/.exec(text);
  if (network !== null)
    return { kind: "host", matches: inNetwork(text, network[1] ?? "", Number(network[2])), port: undefined };
  const suffix = /^\*(\.[A-Za-z0-9.-]+)$/.exec(text)?.[1]?.toLowerCase();
  if (suffix !== undefined) return { kind: "host", matches: (host) => host.endsWith(suffix), port: undefined };
  if (isIP(text) !== 0 || /^[A-Za-z0-9._-]+$/.test(text)) return oneHost(text, undefined);
  try {
    const address = parseAddress(text);
    if (address.kind === "tcp") return oneHost(hostOf(address), address.port);
  } catch {
    // the fault below says what may be written
  }
  throw invalid(text);
}

function readSocket(text: string): Entry {
  const address = parseAddress(text);
  if (address.kind !== "unix") throw invalid(text);
  return { kind: "unix", path: address.path };
}

function oneHost(text: string, port: number | undefined): Entry {
  const name = text.toLowerCase();
  if (isIP(name) === 0) return { kind: "host", matches: (host) => host === name, port };
  // an IPv6 address can be written in many ways, so the addresses are compared and not their texts
  return { kind: "host", matches: inNetwork(text, name, isIP(name) === 4 ? 32 : 128), port };
}

function inNetwork(text: string, address: string, prefix: number): (host: string) => boolean {
  const version = isIP(address);
  if (version === 0 || prefix > (version === 4 ? 32 : 128)) throw invalid(text);
  const list = new BlockList();
  list.addSubnet(address, prefix, version === 4 ? "ipv4" : "ipv6");
  return (host) => isIP(host) === version && list.check(host, version === 4 ? "ipv4" : "ipv6");
}
