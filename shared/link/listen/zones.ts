/**
 * IPv6 addresses with a zone, such as fe80::1%eth0. The zone is an interface of the host that dials or listens. gRPC's
 * library takes an address for part of a URL, in which a zone is not allowed. So such addresses get a scheme of their
 * own in gRPC: the name of the server has no zone, and the address has the zone as the name of the interface.
 */
import { networkInterfaces } from "node:os";
import { experimental, status } from "@grpc/grpc-js";
import { parseAddress, withoutZone, zoneOf } from "../../address.ts";

const SCHEME = "zoned";

type Resolver = Parameters<typeof experimental.registerResolver>[1];
type Target = Parameters<Resolver["getDefaultAuthority"]>[0];

/** Returns what gRPC's library is to dial for the address of an agent. */
export function targetOf(text: string): string {
  const address = parseAddress(text);
  return address.kind === "tcp" && zoneOf(address.host) !== undefined ? `${SCHEME}:${text}` : text;
}

/** Tells why an address cannot be used on this host. @returns undefined where its zone, if it has one, is known */
export function zoneMistake(text: string): string | undefined {
  const address = parseAddress(text);
  const zone = address.kind === "tcp" ? zoneOf(address.host) : undefined;
  if (zone === undefined || nameOf(zone) !== undefined) return undefined;
  return `the zone ${zone} of ${text} is no interface of this host with an IPv6 address`;
}

/**
 * Returns the host with its zone as the name of an interface, since Node listens at no zone that is a number (libuv,
 * uv_ip6_addr).
 */
export function named(host: string): string {
  const zone = zoneOf(host);
  return zone === undefined ? host : `${withoutZone(host)}%${nameOf(zone) ?? zone}`;
}

/** Finds the name of an interface by its name or its number. */
function nameOf(zone: string): string | undefined {
  for (const [name, addresses = []] of Object.entries(networkInterfaces()))
    for (const one of addresses) {
      if (one.family !== "IPv6" || one.scopeid === 0) continue;
      if (name === zone || String(one.scopeid) === zone) return name;
    }
  return undefined;
}

/**
 * Resolves addresses of the scheme that stands for a zone: to the one address in the text, or to a fault that says what
 * is wrong with the zone.
 */
class ZonedResolver {
  private readonly target: Target;
  private readonly listener: ConstructorParameters<Resolver>[1];
  private hasAnswered = false;

  constructor(...[target, listener]: ConstructorParameters<Resolver>) {
    this.target = target;
    this.listener = listener;
  }

  static getDefaultAuthority({ path }: Target): string {
    return path.replace(/%[^\]]*/, "");
  }

  /**
   * Answers once, as gRPC's own resolver of IP addresses does, since gRPC asks again at once after a failed connection.
   */
  updateResolution(): void {
    if (this.hasAnswered) return;
    this.hasAnswered = true;
    process.nextTick(() => this.listener(this.resolved(), {}, null, ""));
  }

  destroy(): void {
    this.hasAnswered = false;
  }

  private resolved(): Parameters<ConstructorParameters<Resolver>[1]>[0] {
    const { path } = this.target;
    const address = parseAddress(path);
    const details = zoneMistake(path);
    if (details !== undefined || address.kind !== "tcp")
      return experimental.statusOrFromError({ code: status.UNAVAILABLE, details: details ?? path });
    const { host, port } = address;
    return experimental.statusOrFromValue([{ addresses: [{ host: named(host), port }] }]);
  }
}

experimental.registerResolver(SCHEME, ZonedResolver);
