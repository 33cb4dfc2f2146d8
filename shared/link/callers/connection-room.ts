/**
 * A room for the connections of one standing. The room has a number of places, and each group may take only some of
 * them. A group is a network, or the name in a certificate. When the room is full, the oldest connection of the group
 * with the most connections has to leave, so that a flood from one network ends its own connections first.
 */

/** What a room has to know of a connection. */
export interface InRoom {
  /** The groups of the connection. It takes a place in each of them. */
  readonly groups: readonly string[];
  /** True for a connection that must not be ended to make room for another one. */
  readonly isKept: boolean;
}

/** How many connections a room takes, and how many of each group among them. */
export interface RoomSize {
  readonly max: number;
  readonly perGroup: number;
}

export class Room<C extends InRoom> {
  private readonly size: RoomSize;
  /** The connections in the room, from the oldest to the newest. */
  private readonly members = new Set<C>();
  private readonly byGroup = new Map<string, number>();

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
    for (const group of one.groups) this.byGroup.set(group, this.of(group) + 1);
  }

  delete(one: C): void {
    if (!this.members.delete(one)) return;
    for (const group of one.groups) {
      const left = this.of(group) - 1;
      if (left > 0) this.byGroup.set(group, left);
      else this.byGroup.delete(group);
    }
  }

  /** True if one more connection of these groups fits. */
  hasRoomFor(groups: readonly string[]): boolean {
    return this.members.size < this.size.max && this.full(groups) === undefined;
  }

  /** @returns the connection that has to leave before another of these groups fits; undefined if none may be ended */
  toEnd(groups: readonly string[]): C | undefined {
    const own = this.full(groups);
    let found: C | undefined;
    for (const one of this.members) {
      if (one.isKept || (own !== undefined && !one.groups.includes(own))) continue;
      if (found === undefined || this.most(one) > this.most(found)) found = one;
    }
    return found;
  }

  /** @returns the first of the groups that has taken all of its places */
  private full(groups: readonly string[]): string | undefined {
    return groups.find((group) => this.of(group) >= this.size.perGroup);
  }

  private most({ groups }: C): number {
    return groups.reduce((most, group) => Math.max(most, this.of(group)), 0);
  }

  private of(group: string): number {
    return this.byGroup.get(group) ?? 0;
  }
}

/**
 * Returns the part of an address that counts as one network: the whole of an IPv4 address, and the first 64 bits of an
 * IPv6 address, since a host that has one address of such a network has as many as it likes.
 * @param address as a socket shows it; undefined for a unix socket, and for a socket that was closed
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
