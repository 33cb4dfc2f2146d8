/** Tests how addresses are read, and which of them are loopback or wildcards. */
import t from "tap";
import { isLoopback, isWildcard, parseAddress, withoutZone, zoneOf } from "../../shared/address.ts";

t.test("an address is a host and a port, with IPv6 in brackets, or the path of a socket", async (t) => {
  t.same(parseAddress("host-1.example:7411"), { kind: "tcp", host: "host-1.example", port: 7411 });
  t.same(parseAddress("[fe80::1]:1"), { kind: "tcp", host: "fe80::1", port: 1 });
  t.same(parseAddress("unix:/run/ferry/a.sock"), { kind: "unix", path: "/run/ferry/a.sock" });
  for (const text of [
    "",
    "host",
    ":7411",
    "host:",
    "host:99999",
    "::1:7411",
    "unix:",
    "unix:relative",
    "a b:1",
    "http://a:1",
    "fe80::1%eth0:7412",
    "[fe80::1%]:7412",
    "[fe80::1%eth0%eth1]:7412",
    "[fe80::1%e h]:7412",
    "[host%eth0]:7412",
    "10.0.0.1%eth0:7412",
    `unix:/${"x".repeat(107)}`,
  ])
    t.throws(() => parseAddress(text), { code: "invalid-argument" }, text);
});

t.test("a loopback address is one that stays on the host", async (t) => {
  for (const text of ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1", "[::1%lo]:1", "unix:/x"])
    t.ok(isLoopback(parseAddress(text)), text);
  for (const text of [
    "10.0.0.1:1",
    "0.0.0.0:1",
    "[::]:1",
    "127.example.org:1",
    "localhost.example:1",
    "[fe80::1%lo]:1",
  ])
    t.notOk(isLoopback(parseAddress(text)), text);
});

t.test("a wildcard address stands for every address", async (t) => {
  for (const text of ["0.0.0.0:1", "[::]:1", "[::%eth0]:1"]) t.ok(isWildcard(parseAddress(text)), text);
  for (const text of ["127.0.0.1:1", "[::1]:1", "unix:/x"]) t.notOk(isWildcard(parseAddress(text)), text);
});

t.test("an IPv6 address may have a zone, which is the name or number of an interface", async (t) => {
  t.same(parseAddress("[fe80::1%eth0]:7412"), { kind: "tcp", host: "fe80::1%eth0", port: 7412 });
  for (const host of ["fe80::1%2", "fe80::1%br-0.1", "FE80::1%wlan_0", "::ffff:10.0.0.1%a~b"])
    t.same(parseAddress(`[${host}]:1`), { kind: "tcp", host, port: 1 });
  t.equal(zoneOf("fe80::1%eth0"), "eth0");
  t.equal(zoneOf("fe80::1"), undefined);
  t.equal(withoutZone("fe80::1%eth0"), "fe80::1");
  t.equal(withoutZone("host"), "host");
});

t.test("a path of a socket that is too long is reported as such", async (t) => {
  t.throws(() => parseAddress(`unix:/${"x".repeat(107)}`), { message: /has 108 bytes, more than the 107/ });
  t.ok(parseAddress(`unix:/${"x".repeat(106)}`));
});
