/** Tests what callers find while an agent takes up what its journal knows. */
import { connect } from "node:net";
import t from "tap";
import { Gate } from "../../../../shared/link/grpc/gate.ts";
import { dialSource } from "../../../../shared/link/grpc/grpc-link.ts";
import { serveSource } from "../../../../shared/link/grpc/grpc-server.ts";
import { GrpcOperatorClient } from "../../../../shared/link/grpc/operator-client.ts";
import type { SourceChannel, SourceService } from "../../../../shared/link/link.ts";
import { deferred } from "../../../../shared/runtime/deferred.ts";
import { bounded } from "../../../support/bounded.ts";
import { healthOf } from "../../../support/health.ts";
import { LIMITS, portOf, SERVE, sourceService } from "../../../support/link.ts";
import { call, hello } from "../../../support/link-fixtures.ts";

const WAIT_MS = 10_000;

async function behindGate(t: { teardown(done: () => unknown): unknown }) {
  const gate = new Gate<SourceService>();
  const listener = await serveSource(gate, SERVE);
  t.teardown(() => listener.close(0));
  return { gate, listener };
}

t.test("health says NOT_SERVING until the gate opens", async (t) => {
  const { gate, listener } = await behindGate(t);
  const names = ["", "ferry.v1.MigrationService", "ferry.v1.TransferService"];
  for (const name of names) t.equal(await healthOf(listener.address, name), "NOT_SERVING", name);
  gate.open(sourceService({}));
  for (const name of names) t.equal(await healthOf(listener.address, name), "SERVING", name);
});

t.test("a call waits for the gate, and is answered when the gate opens", async (t) => {
  const { gate, listener } = await behindGate(t);
  const client = new GrpcOperatorClient(listener.address, WAIT_MS);
  t.teardown(() => client.close());
  const answer = client.listMigrations();
  // this is answered after its question, so the call that came earlier on the same connection has come too
  t.equal(await healthOf(listener.address, ""), "NOT_SERVING");
  gate.open(sourceService({ listMigrations: () => [] }));
  t.same(await answer, []);
  t.same(await client.listMigrations(), [], "the next call is answered too");
});

t.test("a migration whose operator left before the gate opened is not begun", async (t) => {
  const gate = new Gate<SourceService>();
  const begun: string[] = [];
  const left = { cancelled: true };
  const passing = gate.pass(left);
  gate.open(sourceService({ migrate: async ({ guest }) => `${begun.push(guest)}` }));
  await t.rejects(passing, { code: "cancelled" });
  t.same(begun, []);
  t.equal(await (await gate.pass({ cancelled: false })).migrate(call), "1");
});

t.test("a destination that dials in waits too, and one that no migration expects is told why", async (t) => {
  const { gate, listener } = await behindGate(t);
  const taken = deferred<SourceChannel>();
  const channel = dialSource(listener.address, LIMITS);
  t.teardown(() => channel.close());
  channel.send(hello);
  const rude = dialSource(listener.address, LIMITS);
  rude.send({ ...hello, migrationId: "unknown" });
  t.equal(await healthOf(listener.address, ""), "NOT_SERVING");
  gate.open(
    sourceService({
      acceptTransfer: ({ migrationId }, accepted) => {
        if (migrationId !== hello.migrationId) throw new TypeError("nobody waits for it");
        taken.resolve(accepted);
      },
    }),
  );
  await bounded(taken.promise, WAIT_MS, "the stream");
  t.match(await bounded(rude.closed, WAIT_MS, "the refusal"), { message: /nobody waits for it/ });
});

t.test("the port is bound while the gate is shut", async (t) => {
  const { listener } = await behindGate(t);
  const socket = connect(portOf(listener), "127.0.0.1");
  t.teardown(() => socket.destroy());
  await bounded(new Promise<void>((resolve) => socket.once("connect", () => resolve())), WAIT_MS, "a connection");
});
