/**
 * Tests addresses with a zone: an agent listens at one and is called by it, and a zone that is no interface is
 * reported.
 */
import { networkInterfaces } from "node:os";
import t from "tap";
import { connectDestination } from "../../../../shared/link/grpc/grpc-link.ts";
import { serveDestination, serveSource } from "../../../../shared/link/grpc/grpc-server.ts";
import { GrpcOperatorClient } from "../../../../shared/link/grpc/operator-client.ts";
import { named, targetOf, zoneMistake } from "../../../../shared/link/listen/zones.ts";
import { LIMITS, SERVE, sourceService } from "../../../support/link.ts";
import { offer, unexpected } from "../../../support/link-fixtures.ts";

const NOWHERE = "[fe80::1%nowhere0]:7412";
const INSECURE = { kind: "clear", insecure: true } as const;

/** A link-local address of this host, which needs its zone. */
const linkLocal = Object.entries(networkInterfaces())
  .flatMap(([name, addresses = []]) => addresses.map((one) => ({ ...one, name })))
  .find((one) => one.family === "IPv6" && one.scopeid !== 0);

t.test("an address without a zone is left as it is", async (t) => {
  for (const text of ["host:1", "[::1]:1", "10.0.0.1:1", "unix:/run/x%y"]) {
    t.equal(targetOf(text), text);
    t.equal(zoneMistake(text), undefined);
  }
  t.equal(named("::1"), "::1");
});

t.test("a zone that is no interface of this host is reported as such", async (t) => {
  t.match(zoneMistake(NOWHERE), /the zone nowhere0 of \[fe80::1%nowhere0\]:7412 is no interface of this host/);
  const client = connectDestination(NOWHERE, { ...LIMITS, security: INSECURE });
  t.teardown(() => client.close());
  await t.rejects(client.handshake(offer, 5000), { code: "peer-unreachable", message: /the zone nowhere0/ });
  const service = { handshake: unexpected, settle: unexpected };
  const options = { ...SERVE, listen: [NOWHERE], limits: { ...LIMITS, security: INSECURE } };
  await t.rejects(serveDestination(service, options), { code: "configuration", message: /the zone nowhere0/ });
});

t.test(
  "an agent is served and called at an address with a zone",
  { skip: !linkLocal && "no link-local address" },
  async (t) => {
    const { address = "", name = "", scopeid = 0 } = linkLocal ?? {};
    for (const zone of [name, String(scopeid)]) {
      const limits = { ...LIMITS, security: INSECURE };
      const listener = await serveSource(sourceService({ listMigrations: () => [] }), {
        ...SERVE,
        listen: [`[${address}%${zone}]:0`],
        limits,
      });
      t.ok(listener.address.startsWith(`[${address}%${zone}]:`), listener.address);
      const client = new GrpcOperatorClient(listener.address, 5000);
      t.same(await client.listMigrations(), []);
      client.close();
      await listener.close(0);
    }
  },
);
