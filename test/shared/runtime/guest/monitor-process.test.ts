/** Tests which process answers at a monitor, with processes of all kinds, among them real QEMUs. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import t, { type Test } from "tap";
import { QmpClient } from "../../../../shared/qemu/qmp/qmp-client.ts";
import { isOf, processBehind } from "../../../../shared/runtime/guest/monitor-process.ts";
import { identify } from "../../../../shared/runtime/host/process-identity.ts";
import { eventually } from "../../../support/bounded.ts";
import { greeting, Monitor, serve } from "../../../support/fake-monitor.ts";
import { folder } from "../../../support/link-fixtures.ts";
import { RigProcess } from "../../../support/process.ts";
import { atTeardown } from "../../../support/teardown.ts";

/** Starts a process with these words in its command line. @returns its pid */
async function stands(t: Test, ...words: readonly string[]): Promise<number> {
  const child = spawn("sh", ["-c", "read word", "stands-for-a-qemu", ...words], {
    stdio: ["pipe", "ignore", "ignore"],
  });
  const end = (): void => void child.kill("SIGKILL");
  const forget = atTeardown(end);
  t.teardown(() => {
    forget();
    end();
  });
  await once(child, "spawn");
  const pid = child.pid ?? 0;
  // the command line is the program's own only some time after the spawn
  await eventually(
    async () => (words.length === 0 || (await commandOf(pid)).includes(words[0] ?? "") ? true : undefined),
    {
      timeoutMs: 20_000,
      what: "the command line",
    },
  );
  return pid;
}

const commandOf = (pid: number): Promise<string> => readFile(`/proc/${pid}/cmdline`, "latin1").catch(() => "");

/** Makes a monitor that names this thread; undefined stands for a QEMU without a processor. */
async function monitor(t: Test, thread: () => number | undefined): Promise<{ qmp: QmpClient; path: string }> {
  const path = await serve(t, (socket) => {
    const answers = new Monitor(socket, ({ id }) => {
      const at = thread();
      const cpus = at === undefined ? [] : [{ "cpu-index": 0, "qom-path": "/", "thread-id": at, target: "x86_64" }];
      answers.reply({ return: cpus, id });
    });
    answers.reply(greeting());
  });
  const qmp = await QmpClient.connect(path);
  t.teardown(() => qmp.close());
  return { qmp, path };
}

t.test("the thread of a processor leads to its process", async (t) => {
  const pid = await stands(t);
  const { qmp, path } = await monitor(t, () => pid);
  t.same(await processBehind(qmp, path), { pid, identity: await identify(pid) });
});

t.test("a QEMU without a processor is found by the socket in its command line", async (t) => {
  const { qmp, path } = await monitor(t, () => undefined);
  await t.rejects(processBehind(qmp, path), { code: "not-supported", message: /No process of this host/ });
  await stands(t, `unix:${path}.other,server=on`);
  await t.rejects(processBehind(qmp, path), { code: "not-supported" }, "only the whole path counts");
  const pid = await stands(t, `unix:${path},server=on,wait=off`);
  t.same(await processBehind(qmp, path), { pid, identity: await identify(pid) });
});

t.test("two processes that name the socket count as none, unless QEMU tells which of them it is", async (t) => {
  let thread: number | undefined;
  const { qmp, path } = await monitor(t, () => thread);
  const [first] = [await stands(t, `unix:${path},server=on`), await stands(t, `unix:${path},server=on`)];
  const error = { code: "not-supported", message: /2 processes of this host name/, advice: /hidepid/ };
  await t.rejects(processBehind(qmp, path), error);
  thread = await stands(t);
  await t.rejects(processBehind(qmp, path), error, "a thread of another PID namespace may have any number here");
  thread = first;
  t.match(await processBehind(qmp, path), { pid: first });
});

t.test("a thread that does not exist belongs to no process", async (t) => {
  const { qmp, path } = await monitor(t, () => 2 ** 22 + 1);
  await t.rejects(processBehind(qmp, path), { code: "not-supported" });
});

for (const [what, machine] of [
  ["with a processor", "pc-q35-8.1"],
  ["without a processor", "none"],
] as const)
  t.test(`a real QEMU ${what} is found`, async (t) => {
    const path = join(folder(t), "qmp");
    const command = `qemu-system-x86_64 -M ${machine} -accel tcg -nodefaults -display none -S`.split(" ");
    const monitor = ["-qmp", `unix:${path},server=on,wait=off`];
    const qemu = await RigProcess.start({ name: "a QEMU", command: [...command, ...monitor] });
    t.teardown(() => qemu.stop());
    const connect = (): Promise<QmpClient | undefined> => QmpClient.connect(path).catch(() => undefined);
    const qmp = await eventually(connect, { timeoutMs: 20_000, what: "QEMU's monitor" });
    t.teardown(() => qmp.close());
    t.match(await processBehind(qmp, path), { pid: qemu.pid });
  });

t.test("a process belongs to the process that has started it", async (t) => {
  const pid = await stands(t, "unix:/nowhere");
  const own = { pid, identity: (await identify(pid)) ?? "" };
  const me = { pid: process.pid, identity: (await identify(process.pid)) ?? "" };
  t.equal(await isOf(pid, own), true);
  t.equal(await isOf(pid, me), true);
  t.equal(await isOf(process.pid, own), false);
  t.equal(await isOf(pid, { ...me, identity: "boot/1/1" }), false, "a later process has that number");
});

t.test("a path in place of a thread id is no answer of a QEMU", async (t) => {
  const hostile = () => "self/../self" as unknown as number;
  const { qmp, path } = await monitor(t, hostile);
  await t.rejects(processBehind(qmp, path), { code: "qmp-protocol", message: /thread-id/ });
});
