/** Tests the keeper: the program that holds a QEMU's monitor for agents that come and go. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import t, { type Test } from "tap";
import type { MigrationFault } from "../../../shared/fault.ts";
import { QmpClient } from "../../../shared/qemu/qmp/qmp-client.ts";
import { packageRoot } from "../../../shared/runtime/package-root.ts";
import { bounded, eventually } from "../../support/bounded.ts";
import { greeting, Monitor, serve } from "../../support/fake-monitor.ts";
import { folder } from "../../support/link-fixtures.ts";

const PROGRAM = join(packageRoot(), "dist/agent-destination/guest/monitor-keeper.js");
const WITHIN = { timeoutMs: 10_000 };
const GREETING = greeting("oob");

/** Starts a keeper, which stands by until it is told to begin. */
function startKeeper(t: Test) {
  const keeper = spawn(process.execPath, [PROGRAM], { stdio: ["pipe", "ignore", "ignore"] });
  t.teardown(() => void keeper.kill("SIGKILL"));
  const begin = (qmp: string, path: string): void => void keeper.stdin.end(`${JSON.stringify({ qmp, path })}\n`);
  return { stdin: keeper.stdin, begin, pid: keeper.pid ?? 0, ended: once(keeper, "exit") };
}

async function setUp(t: Test, greeting: object = GREETING, ahead: readonly object[] = []) {
  const connections: Monitor[] = [];
  const qmp = await serve(t, (socket: Socket) => {
    const monitor = new Monitor(socket, ({ execute, id }) => {
      // a QEMU whose main loop waits for a page answers nothing else
      if (execute === "query-status") monitor.reply({ return: { status: "running", running: true }, id });
    });
    connections.push(monitor);
    for (const message of [...ahead, greeting]) monitor.reply(message);
  });
  const path = `${qmp}.keeper`;
  const { begin, ended, pid } = startKeeper(t);
  begin(qmp, path);
  await eventually(() => listens(path), { ...WITHIN, what: "the keeper's socket" });
  return { qmp, path, pid, connections, ended };
}

/** Tells whether somebody listens at the socket, whose file is there before that. */
function listens(path: string): Promise<true | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path, () => resolve(true));
    socket.on("error", () => resolve(undefined));
    socket.on("connect", () => socket.destroy());
  });
}

t.test("an event that QEMU sends ahead of its greeting is not taken for the greeting", async (t) => {
  const event = { event: "MIGRATION", data: { status: "active" }, timestamp: { seconds: 1, microseconds: 2 } };
  const { path, connections } = await setUp(t, GREETING, [event]);
  const agent = await QmpClient.connect(path, WITHIN);
  t.same(agent.greeting.version, { major: 10, minor: 0, micro: 2 });
  t.match(connections[0]?.commands[0], { execute: "qmp_capabilities", arguments: { enable: ["oob"] } });
  agent.close();
});

t.test("agents come and go, while QEMU sees one client", async (t) => {
  const { path, connections } = await setUp(t);
  const first = await QmpClient.connect(path, WITHIN);
  t.same(first.greeting.version, { major: 10, minor: 0, micro: 2 });
  t.equal((await first.execute("query-status")).status, "running");
  first.close();
  const second = await QmpClient.connect(path, WITHIN);
  const resumed = second.waitFor("RESUME", undefined, WITHIN);
  connections[0]?.reply({ event: "RESUME", data: {}, timestamp: { seconds: 1, microseconds: 2 } });
  t.equal((await resumed).timestampUs, 1_000_002);
  t.equal((await second.execute("query-status")).running, true);
  t.equal(connections.length, 1);
  t.match(connections[0]?.commands[0], { execute: "qmp_capabilities", arguments: { enable: ["oob"] } });
  second.close();
});

t.test("a command that an agent sends out of band goes to QEMU out of band", async (t) => {
  const { path, connections } = await setUp(t);
  const agent = await QmpClient.connect(path, WITHIN);
  t.teardown(() => agent.close());
  agent.execute("migrate-recover", { uri: "unix:/x" }, { timeoutMs: 100 }).catch(() => undefined);
  const said = () => connections[0]?.commands.find((command) => "exec-oob" in command);
  t.match(await eventually(said, { ...WITHIN, what: "the command" }), { "exec-oob": "migrate-recover" });
});

t.test("the keeper ends with its QEMU, or when it is told to, and leaves no socket", async (t) => {
  const one = await setUp(t);
  one.connections[0]?.socket.destroy();
  t.same((await bounded(one.ended, WITHIN.timeoutMs, "the end of the keeper"))[0], 0);
  t.notOk(existsSync(one.path));
  const other = await setUp(t);
  connect(other.path).end(`${JSON.stringify({ keeper: "quit" })}\n`);
  t.same((await bounded(other.ended, WITHIN.timeoutMs, "the end of the keeper"))[0], 0);
  t.notOk(existsSync(other.path));
});

t.test("a QEMU that floods an agent which does not read is not read either, and nothing is lost", async (t) => {
  const { path, connections, pid } = await setUp(t);
  const agent = connect(path);
  t.teardown(() => void agent.destroy());
  await once(agent, "connect");
  agent.pause();
  const events = 96;
  const filling = "x".repeat(1 << 20);
  for (let number = 0; number < events; number++)
    connections[0]?.reply({ event: "FLOOD", data: { number, filling }, timestamp: { seconds: 1, microseconds: 0 } });
  // the keeper has taken what it takes when what waits for it does not become less any more
  let [before, polls] = [Number.NaN, 0];
  await eventually(
    () => {
      const waiting = connections[0]?.socket.writableLength ?? 0;
      polls = waiting === before ? polls + 1 : 0;
      before = waiting;
      return waiting === 0 || polls === 20 ? true : undefined;
    },
    { timeoutMs: 60_000, what: "the keeper to take no more" },
  );
  const numbers: unknown[] = [];
  const lines = createInterface(agent);
  for await (const line of lines) {
    const { event, data } = JSON.parse(line);
    if (event === "FLOOD") numbers.push(data.number);
    if (numbers.length === events) break;
  }
  t.same(numbers, [...numbers.keys()]);
  const peak = Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
  t.ok(peak < 160, `the keeper took ${peak} MiB at most`);
});

t.test("a QEMU without out-of-band commands is not asked for them", async (t) => {
  const { connections } = await setUp(t, { QMP: { ...GREETING.QMP, capabilities: [] } });
  t.same(connections[0]?.commands[0]?.arguments, { enable: [] });
});

t.test("a second agent takes over from the first, and does not get an answer to the first", async (t) => {
  const { path, connections } = await setUp(t);
  const first = await QmpClient.connect(path, WITHIN);
  const lost = first.execute("query-migrate").catch((fault: MigrationFault) => fault.code);
  const asked = await eventually(() => connections[0]?.commands.find(({ execute }) => execute === "query-migrate"), {
    ...WITHIN,
    what: "the command of the first agent",
  });
  const second = await QmpClient.connect(path, WITHIN);
  t.teardown(() => second.close());
  t.match(await bounded(lost, WITHIN.timeoutMs, "the end of the first"), /^qmp-/);
  connections[0]?.reply({ return: { status: "late" }, id: asked.id });
  t.equal((await second.execute("query-status")).status, "running");
});

t.test("an agent that does not speak QMP is cut off, and the next one finds the monitor as it was", async (t) => {
  const { path } = await setUp(t);
  const wrong = connect(path);
  const left = once(wrong, "close");
  wrong.resume().write("what?\r\n");
  await bounded(left, WITHIN.timeoutMs, "its connection to be closed");
  const next = await QmpClient.connect(path, WITHIN);
  t.equal((await next.execute("query-status")).status, "running");
  next.close();
});

t.test("without a QEMU the keeper ends, and leaves no socket", async (t) => {
  const path = join(folder(t), "keeper");
  const { begin, ended } = startKeeper(t);
  begin(join(folder(t), "none"), path);
  await bounded(ended, WITHIN.timeoutMs, "the end of the keeper");
  t.notOk(existsSync(path));
});

t.test("the keeper stands by until it is told to begin, and ends with the agent that would tell it", async (t) => {
  let connections = 0;
  const qmp = await serve(t, () => connections++);
  const { stdin, ended } = startKeeper(t);
  // the word to begin is not whole
  stdin.write(JSON.stringify({ qmp, path: `${qmp}.keeper` }));
  stdin.destroy();
  t.same(await bounded(ended, WITHIN.timeoutMs, "the end of the keeper"), [0, null]);
  t.equal(connections, 0, "the monitor was left to others");
});

t.test("the host's list of processes shows for which QEMU a keeper is", async (t) => {
  const { qmp, pid } = await setUp(t);
  const shown = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
  t.match(shown, /^ferry-monitor-keeper /);
  t.ok(`ferry-monitor-keeper ${qmp}`.startsWith(shown), shown);
});

t.test("SIGHUP does not end the keeper", async (t) => {
  const { path, pid } = await setUp(t);
  process.kill(pid, "SIGHUP");
  const agent = await QmpClient.connect(path, WITHIN);
  t.match(await agent.execute("query-status"), { status: "running" }, "the keeper still speaks to QEMU");
  agent.close();
});
