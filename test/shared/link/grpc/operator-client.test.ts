/** Tests what an operator asks, over a real server with a simulated agent behind it. */
import t from "tap";
import { type ServeOptions, serveSource } from "../../../../shared/link/grpc/grpc-server.ts";
import { GrpcOperatorClient } from "../../../../shared/link/grpc/operator-client.ts";
import type { SourceService } from "../../../../shared/link/link.ts";
import type { MigrationView } from "../../../../shared/protocol/report.ts";
import { deferred } from "../../../../shared/runtime/deferred.ts";
import { result, view } from "../../../support/cli-fixtures.ts";
import { SERVE, sourceService } from "../../../support/link.ts";
import { call, folder, refusal, type Test, unexpected } from "../../../support/link-fixtures.ts";

async function operatorOf(t: Test, methods: Partial<SourceService>, options: ServeOptions = SERVE) {
  const listener = await serveSource(sourceService(methods), options);
  const client = new GrpcOperatorClient(listener.address, 5000);
  t.teardown(() => {
    client.close();
    return listener.close(0);
  });
  return client;
}

const never = (): AbortSignal => new AbortController().signal;

const planCall = { migration: call, observeMs: 0 };

t.test("every question of an operator reaches the agent, and its answer the operator", async (t) => {
  const asked: unknown[] = [];
  const guests = [
    {
      ...{ name: "web", state: "off", detail: "", qemuVersion: "10.0.2", machineType: "q35", migrationId: "" },
      definitionDigest: "0123456789abcdef",
    },
  ];
  const plan = { accepted: false, refusals: refusal.refusals, negotiated: { codecs: "zstd" }, notes: [] };
  const moved = view({ status: "moved", result: result() });
  const answer =
    <Answer>(value: Answer) =>
    (...question: unknown[]): Answer => {
      asked.push(question);
      return value;
    };
  const client = await operatorOf(t, {
    listGuests: answer(Promise.resolve(guests)),
    plan: answer(Promise.resolve(plan)),
    getMigration: answer(moved),
    listMigrations: answer([moved, view()]),
    cancel: answer(Promise.resolve(view({ status: "cancelled" }))),
    heatMap: answer([{ name: "pc.ram", pagesPerCell: 512, cells: Buffer.from([0, 128, 255]) }]),
    resolve: answer(Promise.resolve(moved)),
  });
  t.same(await client.listGuests(), guests);
  t.same(await client.plan(planCall), plan);
  t.same(await client.getMigration("m-1"), moved);
  t.same(await client.listMigrations(), [moved, view()]);
  t.same(await client.cancel("m-2"), view({ status: "cancelled" }));
  t.same(await client.heatMap("web", 3), [{ name: "pc.ram", pagesPerCell: 512, cells: Buffer.from([0, 128, 255]) }]);
  t.same(await client.resolve({ id: "m-3", keep: "destination", confirmed: true }), moved);
  t.same(asked, [
    [],
    [planCall],
    ["m-1"],
    [],
    ["m-2"],
    ["web", 3],
    [{ id: "m-3", keep: "destination", confirmed: true }],
  ]);
});

t.test("a fault of the agent reaches the operator with its advice and every reason", async (t) => {
  const fail = (): never => {
    throw refusal;
  };
  const client = await operatorOf(t, {
    plan: fail,
    listGuests: async () => {
      throw new TypeError("a mistake");
    },
    migrate: fail,
    watch: fail,
    getMigration: fail,
  });
  const { code, message, advice, guestNow, refusals } = refusal;
  const expected = { code, message, advice, guestNow, refusals };
  await t.rejects(client.plan(planCall), expected);
  await t.rejects(client.getMigration("m-1"), expected);
  await t.rejects(client.migrate(call, unexpected, never()), expected);
  await t.rejects(client.watch("m-1", unexpected, never()), expected);
  await t.rejects(client.listGuests(), { code: "internal", message: "a mistake" });
});

t.test("an option with a value that is not allowed is refused, and the allowed values are named", async (t) => {
  const client = await operatorOf(t, {});
  const wrong = { ...call, options: { ...call.options, compression: 40 } };
  const expected = { code: "invalid-argument", message: /compression is "40"; it may be auto, off or a zstd level/ };
  await t.rejects(client.plan({ ...planCall, migration: wrong }), expected);
  await t.rejects(client.migrate(wrong, unexpected, never()), expected);
});

t.test("a migration is watched from its start to its end", async (t) => {
  let observe: (view: MigrationView) => void = unexpected;
  let ended = 0;
  const calls: unknown[] = [];
  const client = await operatorOf(t, {
    migrate: async (asked) => {
      calls.push(asked);
      return "m-7";
    },
    watch: (id, observer) => {
      calls.push(id);
      observe = observer;
      observer(view({ id }));
      return () => ended++;
    },
  });
  const views: MigrationView[] = [];
  const over = client.migrate(
    call,
    (seen) => {
      views.push(seen);
      if (views.length === 1) observe(view({ id: "m-7", status: "moved", result: result() }));
    },
    never(),
  );
  await over;
  t.same(calls, [call, "m-7"]);
  t.same(views, [view({ id: "m-7" }), view({ id: "m-7", status: "moved", result: result() })]);
  t.equal(ended, 1);
});

t.test("an operator who goes away ends the watch, not the migration", async (t) => {
  const unwatched = deferred<void>();
  const client = await operatorOf(t, {
    migrate: async () => "m-1",
    watch: (_, observer) => {
      observer(view());
      return () => unwatched.resolve();
    },
    getMigration: () => view({ status: "copying" }),
  });
  const leaving = new AbortController();
  await client.migrate(call, () => leaving.abort(), leaving.signal);
  await unwatched.promise;
  t.equal((await client.getMigration("m-1")).status, "copying");
});

t.test("a migration whose operator left while it was started goes on unwatched", async (t) => {
  const asked = deferred<void>();
  const started = deferred<string>();
  let watched = 0;
  const client = await operatorOf(t, {
    migrate: () => {
      asked.resolve();
      return started.promise;
    },
    watch: (_, observer) => {
      watched++;
      observer(view({ status: "moved" }));
      return () => undefined;
    },
    listMigrations: () => [],
  });
  const leaving = new AbortController();
  const over = client.migrate(call, unexpected, leaving.signal);
  await asked.promise;
  leaving.abort();
  await over;
  await client.listMigrations(); // it comes after the cancellation on the same connection
  started.resolve("m-1");
  await client.listMigrations();
  t.equal(watched, 0);
});

t.test("an agent that is not there is unreachable, and an agent that goes away is lost", async (t) => {
  const nobody = new GrpcOperatorClient(`unix:${folder(t)}/nobody.sock`, 5000);
  await t.rejects(nobody.listGuests(), { code: "peer-unreachable" });
  nobody.close();
  const listener = await serveSource(
    sourceService({
      watch: (_, observer) => {
        observer(view());
        return () => undefined;
      },
    }),
    SERVE,
  );
  const client = new GrpcOperatorClient(listener.address, 5000);
  await t.rejects(
    client.watch("m-1", () => void listener.close(0), never()),
    { code: "peer-lost" },
  );
  client.close();
});
