/** Tests `QmpClient`, with scripted monitors and with a real QEMU. */
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import t, { type Test } from "tap";
import { MigrationFault } from "../../../../shared/fault.ts";
import { QmpClient } from "../../../../shared/qemu/qmp/qmp-client.ts";
import { LINE_MAX_BYTES } from "../../../../shared/qemu/qmp/qmp-lines.ts";
import type { QmpEvent } from "../../../../shared/qemu/qmp/qmp-types.ts";
import { eventually } from "../../../support/bounded.ts";
import { type Command, Monitor, type Script, serve } from "../../../support/fake-monitor.ts";

const GREETING = { QMP: { version: { qemu: { major: 10, minor: 0, micro: 2 }, package: "Débian" }, capabilities: [] } };

const isRoot = process.getuid?.() === 0;
/** A user without any rights. */
const NOBODY = 65534;

async function pair(
  t: Test,
  script: Script,
  capabilities: readonly string[] = [],
): Promise<{ qmp: QmpClient; monitor: Monitor }> {
  let monitor: Monitor | undefined;
  const path = await serve(t, (socket) => {
    monitor = new Monitor(socket, script);
    monitor.reply({ QMP: { ...GREETING.QMP, capabilities } });
  });
  const qmp = await QmpClient.connect(path);
  t.teardown(() => qmp.close());
  if (monitor === undefined) throw new Error("nobody connected");
  return { qmp, monitor };
}

const rejects = (t: Test, promise: Promise<unknown>, code: string, message = /./): Promise<unknown> =>
  t.rejects(promise, { name: "MigrationFault", code, message });

t.test("the client connects, negotiates, and keeps the greeting", async (t) => {
  const { qmp, monitor } = await pair(t, () => undefined);
  t.strictSame(qmp.greeting, { version: { major: 10, minor: 0, micro: 2 }, package: "Débian" });
  t.equal(monitor.commands[0]?.execute, "qmp_capabilities");
});

t.test("the client sends arguments, and gives back what QEMU returns", async (t) => {
  const { qmp, monitor } = await pair(t, ({ execute, id }, it) =>
    it.reply({ return: execute === "query-status" ? { status: "running", running: true } : {}, id }),
  );
  t.equal((await qmp.execute("query-status")).status, "running");
  await qmp.execute("migrate", { uri: "unix:/run/x" });
  t.strictSame(monitor.commands.at(-1)?.arguments, { uri: "unix:/run/x" });
});

t.test("commands that bring pages back are sent out of band, where QEMU can take them so", async (t) => {
  const script: Script = ({ id }, it) => it.reply({ return: {}, id });
  for (const [capabilities, verb, enabled] of [
    [["oob"], "exec-oob", { enable: ["oob"] }],
    [[], "execute", undefined],
  ] as const) {
    const { qmp, monitor } = await pair(t, script, capabilities);
    await qmp.execute("migrate-recover", { uri: "unix:/run/x" });
    await qmp.execute("migrate-pause");
    await qmp.execute("cont");
    t.strictSame(monitor.commands[0]?.arguments, enabled);
    t.match(monitor.commands.slice(1), [
      { [verb]: "migrate-recover", arguments: { uri: "unix:/run/x" } },
      { [verb]: "migrate-pause" },
      { execute: "cont" },
    ]);
  }
});

t.test("answers in another order find their calls", async (t) => {
  const held: Command[] = [];
  const { qmp } = await pair(t, (command, it) => {
    held.push(command);
    if (held.length === 2) for (const one of held.reverse()) it.reply({ return: one.arguments?.path, id: one.id });
  });
  const answers = await Promise.all([
    qmp.execute("qom-get", { path: "a", property: "p" }),
    qmp.execute("qom-get", { path: "b", property: "p" }),
  ]);
  t.strictSame(answers, ["a", "b"]);
});

t.test("an error of QEMU is a qmp-command fault with its class and text", async (t) => {
  const { qmp } = await pair(t, ({ id }, it) => it.reply({ error: { class: "GenericError", desc: "No such" }, id }));
  await rejects(t, qmp.execute("cont"), "qmp-command", /cont: No such \(GenericError\)/);
});

t.test("events between commands reach subscribers and waiters", async (t) => {
  const { qmp } = await pair(t, ({ id }, it) => {
    it.reply({ event: "MIGRATION", data: { status: "active" }, timestamp: { seconds: 3, microseconds: 4 } });
    it.reply({ return: {}, id });
    it.reply({ event: "MIGRATION", data: { status: "completed" }, timestamp: { seconds: 3, microseconds: 5 } });
  });
  const seen: QmpEvent[] = [];
  const unsubscribe = qmp.subscribe((event) => seen.push(event));
  const completed = qmp.waitFor("MIGRATION", (event) => event.data.status === "completed", { timeoutMs: 20_000 });
  const first = qmp.waitFor("MIGRATION", undefined);
  await qmp.execute("cont");
  t.equal((await first).timestampUs, 3_000_004);
  t.strictSame(await completed, { event: "MIGRATION", data: { status: "completed" }, timestampUs: 3_000_005 });
  t.equal(seen.length, 2);
  unsubscribe();
  await qmp.execute("cont");
  t.equal(seen.length, 2);
});

t.test("a late answer is ignored and the next call works", async (t) => {
  let late: Command | undefined;
  const { qmp } = await pair(t, (command, it) => {
    if (late === undefined) {
      late = command;
      return;
    }
    it.reply({ return: { late: true }, id: late.id });
    it.reply({ return: { status: "paused", running: false }, id: command.id });
  });
  await rejects(t, qmp.execute("stop", undefined, { timeoutMs: 20 }), "qmp-timeout", /stop within 20 ms/);
  t.equal((await qmp.execute("query-status")).status, "paused");
});

t.test("an event that does not come ends its wait with qmp-timeout", async (t) => {
  const { qmp } = await pair(t, () => undefined);
  await rejects(t, qmp.waitFor("STOP", undefined, { timeoutMs: 20 }), "qmp-timeout", /STOP/);
});

t.test("a signal ends calls and waits with its reason", async (t) => {
  const { qmp } = await pair(t, () => undefined);
  const abort = new AbortController();
  const call = qmp.execute("cont", undefined, { signal: abort.signal });
  const wait = qmp.waitFor("STOP", undefined, { signal: abort.signal });
  abort.abort();
  await rejects(t, call, "cancelled");
  await rejects(t, wait, "cancelled");
  await rejects(t, qmp.execute("cont", undefined, { signal: abort.signal }), "cancelled");
});

t.test("a closed socket fails all calls in flight and all later calls", async (t) => {
  const { qmp } = await pair(t, (_, it) => it.socket.destroy());
  const wait = qmp.waitFor("STOP", undefined);
  await rejects(t, qmp.execute("query-status"), "qmp-disconnected");
  await rejects(t, wait, "qmp-disconnected");
  t.equal((await qmp.closed)?.code, "qmp-disconnected");
  await rejects(t, qmp.execute("cont"), "qmp-disconnected");
});

t.test("quit succeeds without an answer, and other calls in flight fail", async (t) => {
  const { qmp } = await pair(t, ({ execute }, it) => {
    if (execute === "quit") it.socket.end();
  });
  const other = qmp.execute("cont");
  await qmp.execute("quit", undefined, { timeoutMs: 20_000 });
  await rejects(t, other, "qmp-disconnected");
  t.equal(await qmp.closed, undefined);
});

t.test("closing after an answered quit is no fault either", async (t) => {
  const { qmp } = await pair(t, ({ id }, it) => {
    it.reply({ return: {}, id });
    it.socket.end();
  });
  await qmp.execute("quit");
  t.equal(await qmp.closed, undefined);
});

t.test("the end of a QEMU that says why it ends is reported with that reason", async (t) => {
  for (const [reason, code, message] of [
    ["guest-shutdown", "guest-not-running", /powered itself off/],
    ["guest-reset", "guest-not-running", /reset itself.*-no-reboot/],
    ["guest-panic", "guest-not-running", /panicked/],
    ["host-qmp-quit", "qemu-failed", /to quit/],
    ["host-signal", "qemu-failed", /by a signal/],
    ["later-reason", "qemu-failed", /has ended \(later-reason\)/],
  ] as const) {
    const { qmp } = await pair(t, ({ id }, it) => {
      it.reply({ event: "SHUTDOWN", data: { guest: false, reason }, timestamp: { seconds: 1, microseconds: 0 } });
      it.reply({ return: {}, id });
      it.socket.end();
    });
    await qmp.execute("stop");
    t.match(await qmp.closed, { code, message, advice: /./ }, reason);
    await rejects(t, qmp.execute("query-status"), code, message);
  }
});

t.test("a guest that was started again after its shutdown has not ended because of the shutdown", async (t) => {
  const { qmp } = await pair(t, ({ id }, it) => {
    const timestamp = { seconds: 1, microseconds: 0 };
    it.reply({ event: "SHUTDOWN", data: { guest: true, reason: "guest-shutdown" }, timestamp });
    it.reply({ event: "RESUME", data: {}, timestamp });
    it.reply({ return: {}, id });
    it.socket.end();
  });
  await qmp.execute("stop");
  t.match(await qmp.closed, { code: "qmp-disconnected", message: /closed its monitor/ });
});

t.test("close() fails calls in flight, and `closed` resolves without a fault", async (t) => {
  const { qmp } = await pair(t, () => undefined);
  const call = qmp.execute("cont");
  qmp.close();
  qmp.close();
  await rejects(t, call, "qmp-disconnected");
  t.equal(await qmp.closed, undefined);
});

const garbage: Record<string, string | Uint8Array> = {
  "not JSON": "hello\r\n",
  "no object": "7\r\n",
  "neither answer nor event": '{"x":1}\r\n',
  "an answer without an id": '{"error":{"class":"GenericError","desc":"bad"}}\r\n',
  "an event without a name": '{"event":7}\r\n',
  "not UTF-8": new Uint8Array([0x22, 0xff, 0xfe, 0x22, 0x0a]),
  "an endless line": new Uint8Array(LINE_MAX_BYTES + 1).fill(0x20),
};

for (const [title, bytes] of Object.entries(garbage))
  t.test(`${title} is a qmp-protocol fault and closes the monitor`, async (t) => {
    const { qmp } = await pair(t, (_, it) => it.raw(bytes));
    await rejects(t, qmp.execute("cont"), "qmp-protocol");
    t.equal((await qmp.closed)?.code, "qmp-protocol");
  });

t.test("messages that are split at any byte are put together, also within a character", async (t) => {
  const text = Buffer.from('{"return": "Zürich €", "id": ID}\r\n{"event": "STÖP", "data": {}}\r\n');
  let at = 1;
  const { qmp } = await pair(t, ({ id }, it) => {
    const bytes = Buffer.from(text.toString().replace("ID", String(id)));
    it.raw(bytes.subarray(0, at));
    // the rest comes in another turn, so that the client reads two chunks
    setImmediate(() => setImmediate(() => it.raw(bytes.subarray(at))));
  });
  for (; at < text.length; at++) {
    const event = qmp.waitFor("STÖP", undefined);
    t.equal(await qmp.execute("qom-get", { path: "/", property: "x" }), "Zürich €", `split at ${at}`);
    await event;
  }
});

t.test("a socket that does not exist is qmp-unreachable", async (t) => {
  const missing = join(tmpdir(), "ferry-qmp-none");
  await rejects(t, QmpClient.connect(missing), "qmp-unreachable", /none/);
});

t.test("a socket left behind by a dead QEMU is qmp-unreachable", async (t) => {
  const path = await serve(t, () => undefined);
  // the process ends without unlinking its socket
  const left = `${path}.left`;
  const script = `require("net").createServer().listen(${JSON.stringify(left)}, () => process.kill(process.pid, "SIGKILL"))`;
  spawnSync(process.execPath, ["-e", script]);
  await rejects(t, QmpClient.connect(left), "qmp-unreachable");
});

t.test("a socket that this user may not use is qmp-forbidden", { skip: !isRoot && "needs root" }, async (t) => {
  const path = await serve(t, () => undefined);
  chmodSync(dirname(path), 0o755);
  for (const [what, mode] of [
    ["the socket", () => chmodSync(path, 0o700)],
    ["its directory", () => chmodSync(dirname(path), 0o700)],
  ] as const) {
    mode();
    process.seteuid?.(NOBODY);
    const fault = await QmpClient.connect(path).then(
      () => undefined,
      (thrown: unknown) => MigrationFault.from(thrown),
    );
    process.seteuid?.(0);
    t.match(fault, { code: "qmp-forbidden", message: /may not use .*EACCES/, advice: /as the agent's user/ }, what);
  }
});

t.test("a monitor that does not greet in time, as it does with a second client, is qmp-timeout", async (t) => {
  const path = await serve(t, () => undefined);
  const fault: MigrationFault = await QmpClient.connect(path, { timeoutMs: 20 }).then(
    () => Promise.reject(new Error("connected")),
    (thrown) => thrown,
  );
  t.equal(fault.code, "qmp-timeout");
  t.match(fault.advice, /one client/);
});

t.test("a socket that closes before the greeting is qmp-disconnected", async (t) => {
  const path = await serve(t, (socket) => socket.destroy());
  await rejects(t, QmpClient.connect(path), "qmp-disconnected");
});

t.test("a greeting without a version is qmp-protocol", async (t) => {
  const path = await serve(t, (socket) => void socket.write('{"QMP": {}}\r\n'));
  await rejects(t, QmpClient.connect(path), "qmp-protocol");
});

t.test("a real QEMU greets, answers, refuses, sends events and quits, and a second client waits", async (t) => {
  const path = join(mkdtempSync(join(tmpdir(), "ferry-qmp-")), "qmp");
  t.teardown(() => rmSync(join(path, ".."), { recursive: true }));
  const args = ["-machine", "none", "-S", "-display", "none", "-qmp", `unix:${path},server=on,wait=off`];
  const qemu = spawn("qemu-system-x86_64", args);
  const exit = new Promise((resolve) => qemu.once("exit", resolve));
  t.teardown(async () => {
    qemu.kill("SIGKILL");
    await exit;
  });
  const connect = (): Promise<QmpClient | undefined> =>
    QmpClient.connect(path).catch((fault: MigrationFault) => {
      if (fault.code === "qmp-unreachable") return undefined;
      throw fault;
    });
  const qmp = await eventually(connect, { timeoutMs: 20_000, what: "QEMU's monitor" });
  t.teardown(() => qmp.close());
  t.ok(qmp.greeting.version.major >= 8);
  t.strictSame((await qmp.execute("query-version")).qemu, qmp.greeting.version);
  t.strictSame(await qmp.execute("query-status"), { status: "prelaunch", running: false });
  await rejects(t, qmp.execute("qom-get", { path: "/nothing", property: "x" }), "qmp-command", /DeviceNotFound/);
  t.match(await qmp.execute("human-monitor-command", { "command-line": "info status" }), /prelaunch/);
  await rejects(t, QmpClient.connect(path, { timeoutMs: 100 }), "qmp-timeout", /did not greet/);
  const resumed = qmp.waitFor("RESUME");
  await qmp.execute("cont");
  const stopped = qmp.waitFor("STOP");
  await qmp.execute("stop");
  t.ok((await stopped).timestampUs >= (await resumed).timestampUs);
  t.ok(Math.abs((await stopped).timestampUs / 1e6 - Date.now() / 1000) < 60, "microseconds since the epoch");
  const shutdown = qmp.waitFor("SHUTDOWN");
  await qmp.execute("quit");
  t.equal((await shutdown).data.reason, "host-qmp-quit");
  t.equal(await qmp.closed, undefined);
});
