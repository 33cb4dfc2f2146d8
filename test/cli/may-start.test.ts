/** Tests `ferry may-start` on journals as the agents write them. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import type { DestinationRecord, QemuProcess, SourceRecord } from "../../shared/protocol/ownership.ts";
import { decodeDestinationRecord, decodeSourceRecord } from "../../shared/protocol/record-decoding.ts";
import { identify } from "../../shared/runtime/host/process-identity.ts";
import { Journal } from "../../shared/runtime/journal/journal.ts";
import { fakeClient, type Operator, operator } from "../support/cli-fixtures.ts";
import { folder } from "../support/link-fixtures.ts";

const grant = { token: "secret", epoch: 1, paused: false };
const record = { guest: "web", sequence: 10, startedAtMs: 10, grant };
const kept: SourceRecord = { ...record, kind: "kept", destination: "beta:7412" };
const arrived: DestinationRecord = { ...record, kind: "arrived", source: "gamma:7411" };

async function host(t: Test) {
  const state = folder(t);
  const [left, came] = [join(state, "source"), join(state, "destination")];
  const source = await Journal.open(left, decodeSourceRecord);
  const destination = await Journal.open(came, decodeDestinationRecord);
  const env = { FERRY_SOURCE_STATE: left, FERRY_DESTINATION_STATE: came };
  return { source, destination, left, came, env };
}

/** Makes the operator who asks. No agent is ever asked. */
const asker = (env: NodeJS.ProcessEnv): Operator => operator(fakeClient({}), { env });

async function lives(): Promise<QemuProcess> {
  return { pid: process.pid, identity: (await identify(process.pid)) ?? "" };
}

async function ended(): Promise<QemuProcess> {
  const child = spawn("cat", { stdio: ["pipe", "ignore", "ignore"] });
  await once(child, "spawn");
  const pid = child.pid ?? 0;
  const qemu = { pid, identity: (await identify(pid)) ?? "" };
  child.stdin.end();
  await once(child, "exit");
  return qemu;
}

t.test("a guest that no journal knows may start, and no agent is asked", async (t) => {
  const { env } = await host(t);
  const typed = await asker(env).type("may-start web --agent 192.0.2.1:1");
  t.match(typed, { code: 0, out: "web may start here: no journal of this host knows of a migration of it\n", err: "" });
  t.same(typed.addresses, []);
});

t.test("the latest record of both journals decides", async (t) => {
  const { env, source, destination } = await host(t);
  const someone = asker(env);
  await destination.write("m-1", arrived);
  t.match(await someone.type("may-start web"), { code: 0, out: /^web may start here: migration m-1 from gamma:7411/ });
  await source.write("m-2", { ...kept, kind: "released", sequence: 11 });
  t.match(await someone.type("may-start web"), {
    code: 1,
    out: "web may not start here: migration m-2 has moved it to beta:7412\n",
    err: "",
  });
  t.match(await someone.type("may-start db"), { code: 0 });
});

t.test("a guest whose QEMU lives may not be started beside it, and one whose QEMU has ended may", async (t) => {
  const { env, destination, source } = await host(t);
  await destination.write("m-1", { ...arrived, qemu: await lives() });
  const beside = await asker(env).type("may-start web");
  t.match(beside, { code: 1, out: `web may not start here: its QEMU is there already, as process ${process.pid}\n` });
  await source.write("m-2", { ...kept, sequence: 11, qemu: await ended() });
  t.match(await asker(env).type("may-start web"), { code: 0, out: /migration m-2 to beta:7412 has kept it/ });
  await destination.write("m-3", { ...arrived, kind: "running", sequence: 12, qemu: await ended() });
  t.match(await asker(env).type("may-start web"), { code: 1, out: /gamma:7411 may have taken it back$/m });
});

t.test("reading leaves the agents' temporary files alone, and makes no file", async (t) => {
  const { env, source, left, came } = await host(t);
  await source.write("m-1", kept);
  await source.prepare("m-1", { ...kept, kind: "granted" });
  t.match(await asker(env).type("may-start web"), { code: 0 });
  t.ok(existsSync(join(left, "m-1.json.new")), "a prepared record does not count yet, and is not removed");
  const nowhere = { ...env, FERRY_DESTINATION_STATE: join(came, "missing") };
  await asker(nowhere).type("may-start web");
  t.notOk(existsSync(join(came, "missing")));
});

t.test("a journal that is missing or cannot be read gives no answer: 255, and the guest may not start", async (t) => {
  const { env, came } = await host(t);
  for (const [name, path] of [
    ["missing", join(came, "missing")],
    ["file", join(came, "file")],
  ] as const) {
    if (name === "file") writeFileSync(path, "");
    const typed = await asker(env).type(`may-start web --destination-state ${path}`);
    t.match(typed, { code: 255, out: /^web may not start here: Cannot read / }, name);
    t.match(typed.err, /^what to do: Ask as the agents' user.*--destination-state none\n$/);
  }
  t.match(
    await asker(env).type("may-start web --destination-state none"),
    { code: 0 },
    "the host does not have that agent",
  );
  t.match(await asker({}).type("may-start web --source-state none --destination-state none"), { code: 0 });
});

t.test("a file that is no whole record may belong to any guest: 255, and none may start", async (t) => {
  const { env, left } = await host(t);
  writeFileSync(join(left, "m-9.json"), '{"format":1,"id":"m-9","record":{"kind":"gran');
  const typed = await asker(env).type("may-start web");
  t.match(typed, { code: 255, out: /^web may not start here: .*m-9\.json is not a record of migration m-9/ });
  t.match(typed.err, /^what to do: Find out where the guest runs/);
});

t.test("a record whose process cannot be looked for gives no answer either", async (t) => {
  const { env, source } = await host(t);
  await source.write("m-1", { ...kept, qemu: { pid: 7, identity: "nonsense" } });
  t.match(await asker(env).type("may-start web"), { code: 255, out: /not the identity of process 7/ });
});

t.test("--wait looks again until an agent has settled the record", async (t) => {
  const { env, source } = await host(t);
  await source.write("m-1", { ...kept, kind: "granted" });
  const someone = asker(env);
  const typing = someone.type("may-start web --wait 1h");
  await someone.clock.untilWaitedFor();
  await source.write("m-1", kept);
  someone.clock.jump(1000);
  await someone.clock.walkUntil(typing);
  t.match(await typing, { code: 0, out: /^web may start here/ });
});

t.test("--wait ends with the verdict of then when its time is over, and at once where nothing passes", async (t) => {
  const { env, source } = await host(t);
  await source.write("m-1", { ...kept, kind: "plan" });
  const someone = asker(env);
  const typing = someone.type("may-start web --wait 5s");
  await someone.clock.untilWaitedFor();
  someone.clock.jump(5000);
  await someone.clock.walkUntil(typing);
  t.match(await typing, { code: 1, out: /is under way/ });
  await source.write("m-1", { ...kept, kind: "released" });
  t.match(await asker(env).type("may-start web --wait 1h"), { code: 1, out: /has moved it/ });
});

t.test("--json says the same to a program", async (t) => {
  const { env, source, left } = await host(t);
  await source.write("m-1", { ...kept, kind: "granted" });
  const typed = await asker(env).type("may-start web --json");
  t.equal(typed.code, 1);
  t.match(JSON.parse(typed.out), {
    guest: "web",
    may: false,
    passing: true,
    known: true,
    migration: "m-1",
    because: /granted/,
  });
  mkdirSync(join(left, "m-2.json"));
  t.match(JSON.parse((await asker(env).type("may-start web --json")).out), { may: false, known: false, advice: /./ });
});

t.test("wrong usage exits with 2, and so does a name that no guest can have", async (t) => {
  const { env } = await host(t);
  for (const line of ["may-start", "may-start ../web", "may-start web --wait 5", "may-start web --now"])
    t.equal((await asker(env).type(line)).code, 2, line);
  t.match(await asker(env).type("may-start --help"), { code: 0, out: /ExecCondition=[\s\S]*255/ });
});
