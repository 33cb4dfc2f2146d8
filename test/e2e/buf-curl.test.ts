/**
 * Tests gRPC's reflection at both agents: with it a client that knows nothing of Ferry (`buf curl`) lists and calls
 * every method.
 */
import t from "tap";
import { assertOneGuest } from "../support/after-migration.ts";
import { BufCurl, type CurlAnswer } from "../support/buf-curl.ts";
import { slowLink, startMigrate } from "../support/ferry-json.ts";
import { openPair } from "../support/pair.ts";

t.setTimeout(240_000);
const SERVICE = "ferry.v1.MigrationService";
const HEALTH = ["grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"];
const OPERATOR = [
  "CancelMigration",
  "GetHeatMap",
  "GetMigration",
  "ListGuests",
  "ListMigrations",
  "Migrate",
  "Plan",
  "ResolveMigration",
  "WatchMigration",
];

t.test("buf curl lists and calls every method of both agents, and moves a guest", async (t) => {
  const workload = { regionMiB: 32, rate: 20e6 };
  const { rig, a, b } = await openPair(t, { guest: { name: "curled", workload } });
  const curl = new BufCurl(rig, rig.a);
  const ask = (method: string, request: object = {}): Promise<CurlAnswer> =>
    curl.call(a.sourceAddress, `${SERVICE}/${method}`, request);
  const migration = { guest: "curled", to: b.destinationAddress };

  await t.test("reflection lists every method of both agents", async (t) => {
    const [source, destination] = [await curl.methods(a.sourceAddress), await curl.methods(b.destinationAddress)];
    const operator = OPERATOR.map((one) => `${SERVICE}/${one}`);
    const expected = [...operator, "ferry.v1.TransferService/Transfer"];
    t.same(
      source.filter((one) => one.startsWith("ferry.")),
      expected,
    );
    t.same(
      destination.filter((one) => one.startsWith("ferry.")),
      ["ferry.v1.DestinationService/Handshake", "ferry.v1.DestinationService/Settle", ...operator],
    );
    for (const listed of [source, destination]) for (const one of HEALTH) t.ok(listed.includes(one), one);
  });

  await t.test("an operator lists the guests and checks a migration before it begins", async (t) => {
    const guests = await ask("ListGuests");
    t.match(guests.messages, [{ guests: [{ name: "curled", state: "running", machineType: "pc-q35-8.1" }] }]);
    const plan = await ask("Plan", { migration });
    t.match(plan.messages, [{ accepted: true, negotiated: { "protocol version": "2" } }]);
    t.same((await ask("ListMigrations")).messages, [{}], "there is no migration so far");
  });

  await t.test("GetHeatMap draws a migration that is under way, and CancelMigration cancels it", async (t) => {
    const run = await startMigrate(rig, a, b, "curled", await slowLink(rig, 100e6));
    const id = await run.copying();
    const map = await ask("GetHeatMap", { idOrGuest: "curled", cells: 16 });
    t.match(map.messages, [{ blocks: [{ name: "pc.ram", pagesPerCell: /^\d+$/, cells: /^[\w+/]+=*$/ }] }]);
    t.match((await ask("ListGuests")).messages, [{ guests: [{ migrationId: id }] }]);
    const cancelled = { migration: { id, status: "MIGRATION_STATUS_CANCELLED" } };
    t.match((await ask("CancelMigration", { id })).messages, [cancelled]);
    t.equal((await run.end()).code, 3);
    await rig.network.setRate(1e9);
    await assertOneGuest(t, rig, { name: "curled", at: rig.a });
  });

  await t.test("Migrate begins a migration with its options, and streams its progress and result", async (t) => {
    const options = { verify: true, downtimeTargetMs: 250, compression: "1" };
    const { code, output, messages } = await ask("Migrate", { ...migration, options });
    t.equal(code, 0, "exit code");
    if (code !== 0) t.comment(output);
    t.ok(messages.length > 2, `${messages.length} messages`);
    t.match(messages.at(-1), {
      migration: { guest: "curled", status: "MIGRATION_STATUS_MOVED", result: { completed: true, verified: true } },
    });
    await assertOneGuest(t, rig, { name: "curled", at: rig.b });
  });

  await t.test("an operator can ask for a migration that has ended, and watch it", async (t) => {
    const listed = await ask("ListMigrations");
    const [{ migrations }] = listed.messages as [{ migrations: { id: string }[] }];
    const { id } = migrations.at(-1)!;
    const moved = { migration: { id, status: "MIGRATION_STATUS_MOVED" } };
    t.match((await ask("GetMigration", { id })).messages, [moved]);
    t.match((await ask("WatchMigration", { id })).messages, [moved]);
    t.match((await ask("CancelMigration", { id })).output, /MOVED|failed_precondition/);
    t.match(
      (await ask("ResolveMigration", { id, keep: "source" })).output,
      /"failed_precondition"[\s\S]*waits for no operator's word/,
    );
    t.match((await ask("GetMigration", { id: "none" })).output, /"not_found"[\s\S]*There is no migration none/);
    await assertOneGuest(t, rig, { name: "curled", at: rig.b });
  });

  await t.test("the methods that agents call of each other answer a stranger with a reason", async (t) => {
    const transfer = "ferry.v1.TransferService/Transfer";
    const stranger = { hello: { migrationId: "none", token: "AAAA" } };
    t.match((await curl.call(a.sourceAddress, transfer, stranger)).output, /"code": "\w+"[\s\S]*No migration waits/);
    const settle = { migrationId: "none", token: "AAAA", ask: "standing" };
    const standing = await curl.call(b.destinationAddress, "ferry.v1.DestinationService/Settle", settle);
    t.match(standing.messages, [{ standing: "unknown", reason: /no record/ }]);
    const shake = await curl.call(b.destinationAddress, "ferry.v1.DestinationService/Handshake", {
      ...{ protocolVersions: [1], migrationId: "0123456789ab", token: "AAAAAAAAAAAAAAAAAAAAAA==" },
      ...{ sourceAddress: a.sourceAddress, guest: { name: "nobody", qemuVersion: { major: 10 } } },
      transfer: { downtimeTargetMs: 300, onDeadline: "cancel", frameBytes: 262144, creditWindowBytes: 1048576 },
    });
    t.match(shake.messages, [{ refusals: { reasons: [{ code: "guest-unknown", message: /nobody/ }] } }]);
    for (const address of [a.sourceAddress, b.destinationAddress]) {
      t.match((await curl.call(address, HEALTH[0]!)).messages, [{ status: "SERVING" }]);
    }
    await assertOneGuest(t, rig, { name: "curled", at: rig.b });
  });

  await t.test("a client that watches an agent's health learns that the agent stops", async (t) => {
    const watching = await curl.start(a.sourceAddress, HEALTH[1]!, { service: SERVICE });
    await watching.waitForOutput(/"SERVING"/, { timeoutMs: 20_000 });
    t.match(await a.source.stop(), { code: 0 });
    await watching.ended;
    t.match(watching.output(), /"NOT_SERVING"|unavailable/, "the client learns of the end");
    await assertOneGuest(t, rig, { name: "curled", at: rig.b });
  });
});
