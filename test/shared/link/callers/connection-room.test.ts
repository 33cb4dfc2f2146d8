/** Tests the rooms in which connections have their places. */
import t from "tap";
import { type InRoom, networkOf, Room } from "../../../../shared/link/callers/connection-room.ts";

t.test("an IPv4 address is one network, and so are the first 64 bits of an IPv6 address", async (t) => {
  const cases: [string | undefined, string][] = [
    ["192.0.2.1", "192.0.2.1"],
    ["::ffff:192.0.2.1", "192.0.2.1"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2"],
    ["2001:db8:1:2::9", "2001:db8:1:2"],
    ["2001:db8::9", "2001:db8:0:0"],
    ["::1", "0:0:0:0"],
    ["fe80::1%eth0", "fe80:0:0:0"],
    [undefined, ""],
  ];
  for (const [address, network] of cases) t.equal(networkOf(address), network, address ?? "none");
});

t.test("when a room is full, the oldest connection of the network that has most must leave", async (t) => {
  const room = new Room<InRoom>({ max: 4, perGroup: 3 });
  const one = (group: string, isKept = false): InRoom => ({ groups: [group], isKept });
  const [a1, b1, b2, b3] = [one("a"), one("b"), one("b"), one("b")];
  for (const each of [a1, b1, b2]) room.add(each);
  t.ok(room.hasRoomFor(["b"]));
  room.add(b3);
  t.notOk(room.hasRoomFor(["c"]), "the room is full");
  t.equal(room.toEnd(["c"]), b1);
  t.equal(room.toEnd(["b"]), b1);
  room.delete(b1);
  room.delete(b1);
  t.equal(room.count, 3);
  t.ok(room.hasRoomFor(["c"]));
  const kept = new Room<InRoom>({ max: 1, perGroup: 1 });
  kept.add(one("a", true));
  t.equal(kept.toEnd(["b"]), undefined);
});

t.test("a connection of several groups counts in each, and makes room in the full one", async (t) => {
  const room = new Room<InRoom>({ max: 10, perGroup: 2 });
  const one = (...groups: readonly string[]): InRoom => ({ groups, isKept: false });
  const [first, second] = [one("192.0.2.1", "name alpha"), one("192.0.2.2", "name alpha")];
  for (const each of [one("192.0.2.1"), first, second]) room.add(each);
  t.notOk(room.hasRoomFor(["192.0.2.3", "name alpha"]), "a name has its places, whatever its addresses are");
  t.equal(room.toEnd(["192.0.2.3", "name alpha"]), first);
  t.notOk(room.hasRoomFor(["192.0.2.1", "name beta"]));
  t.ok(room.hasRoomFor(["192.0.2.3", "name beta"]));
  room.delete(first);
  t.ok(room.hasRoomFor(["192.0.2.1", "name alpha"]));
});
