/** Tests what an operator asks of a destination agent, over a real server with a simulated agent behind it. */
import t from "tap";
import { serveDestination } from "../../../../shared/link/grpc/grpc-server.ts";
import { GrpcOperatorClient } from "../../../../shared/link/grpc/operator-client.ts";
import type { MigrationOperator } from "../../../../shared/link/link.ts";
import type { MigrationView } from "../../../../shared/protocol/report.ts";
import { result, view } from "../../../support/cli-fixtures.ts";
import { migrationOperator, SERVE } from "../../../support/link.ts";
import { call, refusal, type Test, unexpected } from "../../../support/link-fixtures.ts";

const sources = { handshake: unexpected, settle: unexpected };
const incoming = (changes: Partial<MigrationView> = {}): MigrationView => view({ source: "host-a:7411", ...changes });
const never = (): AbortSignal => new AbortController().signal;

async function operatorOf(t: Test, operator: MigrationOperator | undefined) {
  const listener = await serveDestination(sources, SERVE, operator);
  const client = new GrpcOperatorClient(listener.address, 5000);
  t.teardown(() => {
    client.close();
    return listener.close(0);
  });
  return client;
}

t.test("an operator asks a destination agent about the migrations that come to its host", async (t) => {
  const asked: unknown[] = [];
  const answer =
    <Answer>(value: Answer) =>
    (...question: unknown[]): Answer => {
      asked.push(question);
      return value;
    };
  const arrived = incoming({ status: "moved", result: result() });
  const client = await operatorOf(
    t,
    migrationOperator({
      getMigration: answer(arrived),
      listMigrations: answer([arrived, incoming({ status: "doubled" })]),
      cancel: answer(Promise.resolve(incoming({ status: "cancelled" }))),
      resolve: answer(Promise.resolve(arrived)),
    }),
  );
  t.same(await client.getMigration("m-1"), arrived);
  t.same(await client.listMigrations(), [arrived, incoming({ status: "doubled" })]);
  t.same(await client.cancel("m-2"), incoming({ status: "cancelled" }));
  t.same(await client.resolve({ id: "m-3", keep: "destination", confirmed: true }), arrived);
  t.same(asked, [["m-1"], [], ["m-2"], [{ id: "m-3", keep: "destination", confirmed: true }]]);
});

t.test("a migration that comes to a host is watched there until its end", async (t) => {
  const client = await operatorOf(
    t,
    migrationOperator({
      watch: (_, observer) => {
        observer(incoming());
        observer(incoming({ status: "doubled" }));
        observer(incoming({ status: "moved" }));
        return () => undefined;
      },
    }),
  );
  const seen: string[] = [];
  await client.watch("m-1", ({ status }) => void seen.push(status), never());
  t.same(seen, ["copying", "doubled", "moved"], "a guest that runs twice is no end");
});

t.test("a fault of the destination agent reaches the operator", async (t) => {
  const fail = (): never => {
    throw refusal;
  };
  const client = await operatorOf(t, migrationOperator({ resolve: fail, watch: fail }));
  const { code, message, advice, guestNow, refusals } = refusal;
  const expected = { code, message, advice, guestNow, refusals };
  await t.rejects(client.resolve({ id: "m-1", keep: "source", confirmed: false }), expected);
  await t.rejects(client.watch("m-1", unexpected, never()), expected);
});

t.test("a question that only a source agent can answer is answered with whom to ask", async (t) => {
  const client = await operatorOf(t, migrationOperator({}));
  const expected = { code: "not-supported", message: /source agent.*destination agent/, advice: /--agent/ };
  await t.rejects(client.listGuests(), expected);
  await t.rejects(client.plan({ migration: call, observeMs: 0 }), expected);
  await t.rejects(client.migrate(call, unexpected, never()), expected);
  await t.rejects(client.heatMap("web", 3), expected);
});

t.test("a server without an operator has no MigrationService", async (t) => {
  const client = await operatorOf(t, undefined);
  await t.rejects(client.listMigrations(), { code: "peer-invalid", message: /MigrationService/ });
});
