/** Tests what a server takes, what it refuses, and what it shows. */
import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import t from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { dialSource } from "../../../../shared/link/grpc/grpc-link.ts";
import { serveDestination, serveSource } from "../../../../shared/link/grpc/grpc-server.ts";
import { GrpcOperatorClient } from "../../../../shared/link/grpc/operator-client.ts";
import type { LinkLimits } from "../../../../shared/link/link.ts";
import { packageRoot } from "../../../../shared/runtime/package-root.ts";
import { eventually } from "../../../support/bounded.ts";
import { view } from "../../../support/cli-fixtures.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { LIMITS, migrationOperator, SERVE, sourceService } from "../../../support/link.ts";
import { folder, hello, unexpected } from "../../../support/link-fixtures.ts";

t.test("a stream without a hello is cut off, and a hello that no migration expects is refused", async (t) => {
  const clock = new FakeClock();
  const acceptTransfer = (): never => {
    throw new MigrationFault("migration-unknown", "No migration waits for m-1");
  };
  const listener = await serveSource(sourceService({ acceptTransfer }), { ...SERVE, clock });
  t.teardown(() => listener.close(0));
  const { pending } = clock;
  const silent = dialSource(listener.address, LIMITS);
  const opened = (): true | undefined => clock.pending > pending || undefined;
  await eventually(opened, { timeoutMs: 20_000, what: "the stream at the server" });
  await clock.advance(10_000);
  t.match(await silent.closed, { code: "peer-lost", message: /did not introduce itself within 10000 ms/ });
  const rude = dialSource(listener.address, LIMITS);
  rude.send({ kind: "ack", sequence: 1, appliedBytes: 0 });
  t.match(await rude.closed, { code: "peer-invalid" });
  const stranger = dialSource(listener.address, LIMITS);
  stranger.send(hello);
  t.match(await stranger.closed, { code: "migration-unknown" });
  const nobody = dialSource(`unix:${folder(t)}/nobody.sock`, LIMITS);
  t.match(await nobody.closed, { code: "peer-lost" });
});

t.test("TCP in clear serves nobody, not even on the loopback, unless the settings allow it", async (t) => {
  const service = { handshake: unexpected, settle: unexpected };
  const closed: LinkLimits = { ...LIMITS, security: { kind: "clear", insecure: false } };
  for (const address of ["0.0.0.0:0", "127.0.0.1:0", "[::1]:0", "localhost:0"]) {
    await t.rejects(serveDestination(service, { listen: [address], limits: closed }), {
      code: "configuration",
      message: `${address} would serve anybody who reaches it: there is no TLS`,
      advice: /tls\.insecure only where every user of both hosts/,
    });
    t.throws(() => dialSource(address, closed), { code: "configuration", message: /would be called in clear/ });
  }
  const allowed = await serveDestination(service, { listen: ["0.0.0.0:0"], limits: LIMITS });
  t.match(allowed.address, /^0\.0\.0\.0:[1-9]/);
  await allowed.close(0);
});

t.test("a call that changes something has a line of its own in the log", async (t) => {
  const lines: object[] = [];
  const ended = view({ id: "m-1", status: "cancelled" });
  const options = { ...SERVE, listen: [`unix:${folder(t)}/source.sock`], audit: (line: object) => lines.push(line) };
  const listener = await serveSource(sourceService({ cancel: async () => ended }), options);
  t.teardown(() => listener.close(0));
  const client = new GrpcOperatorClient(listener.address, 20_000);
  t.teardown(() => client.close());
  await client.cancel("m-1");
  t.match(lines, [{ call: "CancelMigration", id: "m-1" }]);
  t.equal(lines.length, 1);
});

t.test("an address that is in use is not taken over, but a socket that was left behind is", async (t) => {
  const path = join(folder(t), "source.sock");
  const options = { ...SERVE, listen: [`unix:${path}`] };
  const first = await serveSource(sourceService({ listMigrations: () => [] }), options);
  t.equal(first.address, `unix:${path}`);
  await t.rejects(serveSource(sourceService({}), options), {
    code: "agent-running",
    message: new RegExp(`process ${process.pid} \\(.*\\) listens there`),
  });
  const client = new GrpcOperatorClient(first.address, 5000);
  t.same(await client.listMigrations(), [], "the first server is still there");
  client.close();
  await first.close(0);
  const file = `${path}.txt`;
  writeFileSync(file, "no socket");
  await t.rejects(serveSource(sourceService({}), { ...SERVE, listen: [`unix:${file}`] }), { code: "agent-running" });
});

t.test("a general client finds the services, and their health, by reflection", async (t) => {
  const guests = [
    {
      ...{ name: "web", state: "off", detail: "", qemuVersion: "10.0.2", machineType: "q35", migrationId: "" },
      definitionDigest: "0123456789abcdef",
    },
  ];
  const source = await serveSource(sourceService({ listGuests: async () => guests }), SERVE);
  const incoming = view({ source: "host-a:7411", status: "doubled" });
  const operator = migrationOperator({ listMigrations: () => [incoming] });
  const destination = await serveDestination({ handshake: unexpected, settle: unexpected }, SERVE, operator);
  t.teardown(() => Promise.all([source.close(0), destination.close(0)]));
  const buf = join(packageRoot(), "node_modules/.bin/buf");
  const curl = async (address: string, ...words: string[]): Promise<string> => {
    const flags = ["curl", "--protocol", "grpc", "--http2-prior-knowledge"];
    const [path = "", ...rest] = words;
    return (await promisify(execFile)(buf, [...flags, `http://${address}${path}`, ...rest])).stdout;
  };
  const atSource = await curl(source.address, "", "--list-methods");
  for (const method of ["MigrationService/Migrate", "MigrationService/Plan", "TransferService/Transfer"])
    t.ok(atSource.includes(`ferry.v1.${method}`), method);
  t.ok(atSource.includes("grpc.health.v1.Health/Check"));
  t.match(await curl(source.address, "/grpc.health.v1.Health/Check", "-d", "{}"), /"status":\s*"SERVING"/);
  const listed = await curl(source.address, "/ferry.v1.MigrationService/ListGuests", "-d", "{}");
  t.match(JSON.parse(listed), { guests: [{ name: "web", qemuVersion: "10.0.2" }] });
  const atDestination = await curl(destination.address, "", "--list-methods");
  t.ok(atDestination.includes("ferry.v1.DestinationService/Handshake"));
  t.ok(atDestination.includes("ferry.v1.MigrationService/ResolveMigration"));
  const coming = await curl(destination.address, "/ferry.v1.MigrationService/ListMigrations", "-d", "{}");
  t.match(JSON.parse(coming), { migrations: [{ source: "host-a:7411", status: "MIGRATION_STATUS_DOUBLED" }] });
  const health = JSON.stringify({ service: "ferry.v1.MigrationService" });
  t.match(await curl(destination.address, "/grpc.health.v1.Health/Check", "-d", health), /"status":\s*"SERVING"/);
  t.ok(atDestination.includes("grpc.health.v1.Health/Check"));
});
