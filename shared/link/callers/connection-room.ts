/**
 * A room for connections of one standing: so many at most, and so many of one group. A group is a network, or whom a
 * certificate names. Who has to leave a full room is the oldest of the group that has the most there, so that a flood
 * from one network ends its own connections first.
 */

/** What a room looks at of a connection. */
export interface InRoom {
  /** Each of them counts by itself. */
  readonly groups: readonly string[];
  /** Is it not to be ended for a newcomer's sake? */
  readonly isKept: boolean;
}

export interface RoomSize {
  readonly max: number;
  readonly perGroup: number;
}

export class Room<C extends InRoom> {
  private readonly size: RoomSize;
  /** From the oldest to the newest. */
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

  /** Would one more of these groups fit? */
  hasRoomFor(groups: readonly string[]): boolean {
    return this.members.size < this.size.max && this.full(groups) === undefined;
  }

  /** @returns the one that has to leave before a newcomer of these groups fits; undefined where all are kept */
  toEnd(groups: readonly string[]): C | undefined {
    const own = this.full(groups);
    let found: C | undefined;
    for (const one of this.members) {
      if (one.isKept || (own !== undefined && !one.groups.includes(own))) continue;
      if (found === undefined || this.most(one) > this.most(found)) found = one;
    }
    return found;
  }

  /** @returns the first of the groups that has all of its places */
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
