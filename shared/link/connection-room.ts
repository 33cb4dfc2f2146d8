/**
 * A room for connections of one standing: so many at most, and so many of one network. Who has to leave a full room is
 * the oldest of the network that has the most there, so that a flood from one network ends its own connections first.
 */

/** What a room looks at of a connection. */
export interface InRoom {
  /** networkOf() of its address. */
  readonly network: string;
  /** Is it not to be ended for a newcomer's sake? */
  readonly isKept: boolean;
}

export interface RoomSize {
  readonly max: number;
  readonly perNetwork: number;
}

export class Room<C extends InRoom> {
  private readonly size: RoomSize;
  /** From the oldest to the newest. */
  private readonly members = new Set<C>();
  private readonly byNetwork = new Map<string, number>();

  constructor(size: RoomSize) {
    this.size = size;
  }

  get count(): number {
    return this.members.size;
  }

  oldest(): C | undefined {
    for (const one of this.members) return one;
    return undefined;
  }

  add(one: C): void {
    this.members.add(one);
    this.byNetwork.set(one.network, this.of(one.network) + 1);
  }

  delete(one: C): void {
    if (!this.members.delete(one)) return;
    const left = this.of(one.network) - 1;
    if (left > 0) this.byNetwork.set(one.network, left);
    else this.byNetwork.delete(one.network);
  }

  /** Would one more of this network fit? */
  hasRoomFor(network: string): boolean {
    return this.members.size < this.size.max && this.of(network) < this.size.perNetwork;
  }

  /** @returns the one that has to leave before a newcomer of `network` fits; undefined where all are kept */
  toEnd(network: string): C | undefined {
    const isOfOwn = this.of(network) >= this.size.perNetwork;
    let found: C | undefined;
    for (const one of this.members) {
      if (one.isKept || (isOfOwn && one.network !== network)) continue;
      if (found === undefined || this.of(one.network) > this.of(found.network)) found = one;
    }
    return found;
  }

  private of(network: string): number {
    return this.byNetwork.get(network) ?? 0;
  }
}

/**
 * The part of an address that counts as one network: an IPv4 address, and the first 64 bits of an IPv6 address, since
 * whoever has one address of such a network has as many as they like.
 * @param address as a socket shows it; undefined for a unix socket, and for one that has gone
 */
export function networkOf(address: string | undefined): string {
  if (address === undefined) return "";
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined || !address.includes(":")) return mapped ?? address;
  const [head = "", tail] = (address.split("%")[0] ?? "").split("::");
  const before = head === "" ? [] : head.split(":");
  const behind = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = tail === undefined ? 0 : 8 - before.length - behind.length;
  return [...before, ...Array.from({ length: zeros }, () => "0"), ...behind].slice(0, 4).join(":");
}
