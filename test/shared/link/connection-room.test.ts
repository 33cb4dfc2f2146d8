import t from "tap";
import { type InRoom, networkOf, Room } from "../../../shared/link/connection-room.ts";

t.test("an IPv4 address is one network, and so are 64 bits of IPv6", async (t) => {
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

t.test("a full room is left by the oldest of the network that has most", async (t) => {
  const room = new Room<InRoom>({ max: 4, perNetwork: 3 });
  const one = (network: string, isKept = false): InRoom => ({ network, isKept });
  const [a1, b1, b2, b3] = [one("a"), one("b"), one("b"), one("b")];
  for (const each of [a1, b1, b2]) room.add(each);
  t.ok(room.hasRoomFor("b"));
  room.add(b3);
  t.notOk(room.hasRoomFor("c"), "full");
  t.equal(room.toEnd("c"), b1);
  t.equal(room.toEnd("b"), b1);
  room.delete(b1);
  room.delete(b1);
  t.equal(room.count, 3);
  t.ok(room.hasRoomFor("c"));
  const kept = new Room<InRoom>({ max: 1, perNetwork: 1 });
  kept.add(one("a", true));
  t.equal(kept.toEnd("b"), undefined);
});
