/**
 * Tests the output of a QEMU in the hands of the reader that keeps it short, with real programs and without an agent.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, openSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { lastWordsIn } from "../../../../agent-destination/guest/last-words.ts";
import {
  LOG_BYTES_MAX,
  logIsWritten,
  logPipe,
  olderLog,
  removeLog,
  withBoundedLog,
} from "../../../../shared/runtime/guest/guest-log.ts";
import { eventually } from "../../../support/bounded.ts";
import { folder } from "../../../support/link-fixtures.ts";

t.setTimeout(120_000);

/** Starts a command in the place of a QEMU, as the agent does. Programs are looked for in `path`. */
function start(t: Test, log: string, script: string, path = process.env.PATH): ChildProcess {
  writeFileSync(log, "");
  const descriptor = openSync(log, "a");
  const [program, ...args] = withBoundedLog(["/bin/sh", "-c", script], log);
  const env = { ...process.env, PATH: path };
  const child = spawn(program, args, { detached: true, env, stdio: ["ignore", descriptor, descriptor] });
  t.teardown(() => child.kill("SIGKILL"));
  return child;
}

/** @returns the processes of that session */
function inSession(leader: number): readonly string[] {
  return readdirSync("/proc").filter((pid) => {
    try {
      // pid (comm) state ppid pgrp session: proc(5)
      return Number(/^.*\) \S \d+ \d+ (\d+)/s.exec(readFileSync(`/proc/${pid}/stat`, "latin1"))?.[1]) === leader;
    } catch {
      return false;
    }
  });
}

const size = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0;

t.test("a QEMU that writes 100 MB leaves half a megabyte, which has the end of its output", async (t) => {
  const log = join(folder(t), "web.qemu.log");
  const child = start(t, log, "yes 0123456789abcdef | head -c 100000000; echo; echo the end >&2");
  let most = 0;
  const looks = setInterval(() => {
    most = Math.max(most, size(log) + size(olderLog(log)));
  }, 5);
  const [code] = await once(child, "exit");
  await logIsWritten(log);
  clearInterval(looks);
  t.equal(code, 0);
  t.ok(most > LOG_BYTES_MAX, `${most} bytes at most while it wrote`);
  t.ok(most <= 2 * LOG_BYTES_MAX, `${most} bytes at most while it wrote`);
  t.ok(size(olderLog(log)) > 0);
  t.match(await lastWordsIn(log), /0123456789abcdef\n0\d*a?b?c?d?e?f?\nthe end$/);
  t.notOk(existsSync(logPipe(log)), "the reader has ended");
  await removeLog(log);
  t.same([log, olderLog(log)].filter(existsSync), []);
});

t.test("what a command writes is there at once, and the command runs in the process that was started", async (t) => {
  const log = join(folder(t), "web.qemu.log");
  const child = start(t, log, 'echo "I am $$"; echo through a device >/dev/stdout; exec sleep 600');
  await eventually(() => /a device/.test(readFileSync(log, "utf8")) || undefined, {
    timeoutMs: 20_000,
    what: "the words of the command",
  });
  t.equal(readFileSync(log, "utf8"), `I am ${child.pid}\nthrough a device\n`);
  t.match(readFileSync(`/proc/${child.pid}/cmdline`, "utf8"), /^sleep.600/);
  t.ok(statSync(logPipe(log)).isFIFO());
  t.equal(statSync(logPipe(log)).mode & 0o777, 0o600);
  child.kill("SIGKILL");
  await once(child, "exit");
  await logIsWritten(log);
  t.notOk(existsSync(logPipe(log)));
});

t.test("a log that has been removed does not stop the command", async (t) => {
  const directory = folder(t);
  const log = join(directory, "web.qemu.log");
  const goes = join(directory, "go");
  const child = start(t, log, `echo first; until [ -e ${goes} ]; do sleep 0.05; done; yes | head -c 3000000; exit 7`);
  await eventually(() => /first/.test(readFileSync(log, "utf8")) || undefined, { timeoutMs: 20_000, what: "a word" });
  await removeLog(log);
  writeFileSync(goes, "");
  t.same(await once(child, "exit"), [7, null]);
  t.notOk(existsSync(log), "nothing is left of the log");
});

t.test("the reader has left the session of a command before the command begins, however slow it is", async (t) => {
  const directory = folder(t);
  const log = join(directory, "web.qemu.log");
  const setsid = join(directory, "setsid");
  writeFileSync(setsid, `#!/bin/sh\nsleep 0.5\nPATH=${process.env.PATH}\nexec setsid "$@"\n`, { mode: 0o755 });
  const child = start(t, log, "kill -KILL $$", `${directory}:${process.env.PATH}`);
  const left = once(child, "exit").then((how) => ({ how, processes: inSession(child.pid ?? -1) }));
  t.same(await left, { how: [null, "SIGKILL"], processes: [] });
  await logIsWritten(log);
});

t.test("a host without setsid starts the command, and says that its output is not kept", async (t) => {
  const directory = folder(t);
  const log = join(directory, "web.qemu.log");
  const child = start(t, log, "echo lost; exit 7", directory);
  t.same(await once(child, "exit"), [7, null]);
  t.equal(readFileSync(log, "utf8"), "the output of the command is not kept\n");
});
