/** Tests the setting `destinations.allowed`: which destinations an operator may name. */
import t from "tap";
import { AllowedDestinations } from "../../../agent-source/service/allowed-destinations.ts";

t.test("without entries every address may be named, and nothing that is no address", async (t) => {
  const all = new AllowedDestinations([]);
  for (const address of ["beta:7412", "192.0.2.1:1", "unix:/run/ferry/peers.sock"]) all.check(address);
  t.throws(() => all.check("beta"), { code: "invalid-argument" });
  t.same(all.sockets, []);
});

const CASES: readonly (readonly [entry: string, inside: readonly string[], outside: readonly string[]])[] = [
  ["beta", ["beta:7412", "BETA:1", "beta.:1"], ["beta2:7412", "beta.example:7412", "192.0.2.1:7412"]],
  ["beta:7412", ["beta:7412"], ["beta:7413"]],
  ["*.example.net", ["a.example.net:1", "a.b.Example.net:1"], ["example.net:1", "aexample.net:1"]],
  ["192.0.2.0/24", ["192.0.2.255:1"], ["192.0.3.0:1", "localhost:1", "[::ffff:192.0.2.1]:1"]],
  ["192.0.2.1", ["192.0.2.1:1"], ["192.0.2.10:1"]],
  ["192.0.2.1:7412", ["192.0.2.1:7412"], ["192.0.2.1:7411"]],
  ["2001:db8::1", ["[2001:db8::1]:1", "[2001:DB8:0::0:1]:1"], ["[2001:db8::2]:1"]],
  ["[2001:db8::1]:7412", ["[2001:db8:0:0::1]:7412"], ["[2001:db8::1]:7411"]],
  ["2001:db8::/32", ["[2001:db8:ffff::1]:1"], ["[2001:db9::1]:1"]],
  ["fe80::1", ["[fe80::1%eth0]:1"], ["[fe80::2%eth0]:1"]],
  ["unix:/run/b/peers.sock", ["unix:/run/b/peers.sock"], ["unix:/run/b/peers.sock2", "beta:7412"]],
];

for (const [entry, inside, outside] of CASES)
  t.test(`the entry ${entry} allows what it names, and no more`, async (t) => {
    const allowed = new AllowedDestinations([entry]);
    for (const address of inside) allowed.check(address);
    for (const address of outside)
      t.throws(() => allowed.check(address), {
        code: "not-authorised",
        message: `${address} is not among the destinations of this agent`,
        guestNow: "the guest runs here, and nothing was touched",
      });
    t.same(allowed.sockets, entry.startsWith("unix:") ? ["/run/b/peers.sock"] : []);
  });

t.test("an entry that names nothing keeps the agent from starting", async (t) => {
  for (const entry of [
    "",
    "*",
    "*.",
    "beta:",
    "beta:99999",
    "192.0.2.0/33",
    "::/129",
    "a/24",
    "unix:relative",
    "[beta]:1",
  ])
    t.throws(() => new AllowedDestinations([entry]), { code: /configuration|invalid-argument/ }, entry);
});
