/** Tests operators who watch and do not read, and more operators than an agent serves. */
import { Client, type ClientReadableStream, credentials } from "@grpc/grpc-js";
import t, { type Test } from "tap";
import { serveSource } from "../../../../shared/link/grpc/grpc-server.ts";
import { migrationService } from "../../../../shared/link/grpc/services.ts";
import type { Received } from "../../../../shared/link/wire/proto-files.ts";
import type { MigrationView } from "../../../../shared/protocol/report.ts";
import { deferred } from "../../../../shared/runtime/deferred.ts";
import { eventually } from "../../../support/bounded.ts";
import { progress, view } from "../../../support/cli-fixtures.ts";
import { SERVE, sourceService } from "../../../support/link.ts";
import { call } from "../../../support/link-fixtures.ts";

type Watch = ClientReadableStream<Received<MigrationView>>;

/** Makes a client that opens streams, and reads nothing before it is told to. */
function operator(t: Test, address: string) {
  const client = new Client(address, credentials.createInsecure());
  t.teardown(() => client.close());
  const open = <Request>(method: "WatchMigration" | "Migrate", request: Request): Watch => {
    const { path, requestSerialize, responseDeserialize } = migrationService[method];
    const serialize = requestSerialize as unknown as (asked: Request) => Buffer;
    const stream = client.makeServerStreamRequest(path, serialize, responseDeserialize, request);
    stream.on("error", () => undefined);
    return stream;
  };
  return { watch: () => open("WatchMigration", "m-1"), migrate: () => open("Migrate", call) };
}

const refused = (stream: Watch): Promise<unknown> =>
  new Promise((resolve) => {
    stream.once("error", resolve);
    stream.resume();
  });

t.test(
  "an operator who does not read costs nothing, however long the migration takes, and does not miss its end",
  async (t) => {
    const observed = deferred<(seen: MigrationView) => void>();
    const service = sourceService({
      watch: (_, observer) => {
        observed.resolve(observer);
        return () => undefined;
      },
    });
    const listener = await serveSource(service, SERVE);
    t.teardown(() => listener.close(0));
    const stream = operator(t, listener.address).watch();
    const tell = await observed.promise;
    // a view has 10 KB, and all views 200 MB
    const large = view({ progress: progress({ heatClasses: new Array(5000).fill(77) }) });
    const before = process.memoryUsage();
    let longestMs = 0;
    for (let told = 0; told < 20_000; told++) {
      const startMs = performance.now();
      tell(large);
      longestMs = Math.max(longestMs, performance.now() - startMs);
      if (told % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    const after = process.memoryUsage();
    const grown = after.heapUsed + after.external - before.heapUsed - before.external;
    t.ok(grown < 32 << 20, `grew by ${grown} bytes`);
    t.ok(longestMs < 10_000, `one view took ${longestMs} ms: nothing waits for an operator who does not read`);
    tell(view({ status: "moved" }));
    const seen: Received<MigrationView>[] = [];
    stream.on("data", (one: Received<MigrationView>) => seen.push(one));
    await new Promise((resolve) => stream.once("end", resolve));
    t.match(seen.at(-1), { status: "moved" });
    // the sockets of the two ends hold some views
    t.ok(seen.length < 2000, `${seen.length} of 20 000 views were kept`);
  },
);

t.test(
  "an operator beyond the limit is refused before a migration is begun, and one who leaves makes room",
  async (t) => {
    let watched = 0;
    let ended = 0;
    let begun = 0;
    const service = sourceService({
      migrate: async () => {
        begun++;
        return "m-1";
      },
      watch: (_, observer) => {
        watched++;
        observer(view());
        return () => void ended++;
      },
    });
    const listener = await serveSource(service, { ...SERVE, operatorStreamsMax: 3 });
    t.teardown(() => listener.close(0));
    const { watch, migrate } = operator(t, listener.address);
    const open = [watch(), migrate(), watch()];
    await eventually(async () => (watched === 3 ? true : undefined), { timeoutMs: 20_000, what: "three watches" });
    t.match(await refused(migrate()), { code: 8, details: /3 operators watch this agent already.*ferry list/ });
    t.match(await refused(watch()), { code: 8 });
    t.equal(begun, 1);
    open[0]?.cancel();
    await eventually(async () => (ended === 1 ? true : undefined), {
      timeoutMs: 20_000,
      what: "the end of the watch that was left",
    });
    watch();
    await eventually(async () => (watched === 4 ? true : undefined), { timeoutMs: 20_000, what: "another watch" });
  },
);

t.test("a stream that was read to its end, or whose migration is not known, does not count", async (t) => {
  let known = true;
  const service = sourceService({
    watch: (_, observer) => {
      if (!known) throw new TypeError("not known");
      observer(view({ status: "moved" }));
      return () => undefined;
    },
  });
  const listener = await serveSource(service, { ...SERVE, operatorStreamsMax: 1 });
  t.teardown(() => listener.close(0));
  const { watch } = operator(t, listener.address);
  for (let i = 0; i < 5; i++) {
    const stream = watch();
    const seen: unknown[] = [];
    stream.on("data", (one: unknown) => seen.push(one));
    await new Promise((resolve) => stream.once("end", resolve));
    t.match(seen, [{ status: "moved" }]);
  }
  known = false;
  for (let i = 0; i < 3; i++) t.match(await refused(watch()), { code: 13, details: /not known/ });
});

t.test("a request that is larger than any valid one is not read", async (t) => {
  const listener = await serveSource(sourceService({ getMigration: () => view() }), SERVE);
  t.teardown(() => listener.close(0));
  const client = new Client(listener.address, credentials.createInsecure());
  t.teardown(() => client.close());
  const { path, requestSerialize, responseDeserialize } = migrationService.GetMigration;
  const ask = (id: string): Promise<unknown> =>
    new Promise((resolve) =>
      client.makeUnaryRequest(path, requestSerialize, responseDeserialize, id, (error, answer) =>
        resolve(error ?? answer),
      ),
    );
  t.match(await ask("x".repeat(1 << 20)), { code: 8 });
  t.match(await ask("m-1"), { id: "m-1" });
});
