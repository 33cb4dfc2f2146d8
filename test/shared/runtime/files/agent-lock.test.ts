/** Tests the lock that keeps a second agent away from the directories of the first one. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import t, { type Test } from "tap";
import { type LockedPlaces, lockDirectories } from "../../../../shared/runtime/files/agent-lock.ts";
import { createLogger, type Logger } from "../../../../shared/runtime/log/log.ts";
import { packageRoot } from "../../../../shared/runtime/package-root.ts";
import { bounded } from "../../../support/bounded.ts";
import { canMakeNamespaces } from "../../../support/network.ts";

const STARTS_MS = 20_000;
const HOLDER = join(packageRoot(), "dist/test/support/lock-holder.js");
const silent = createLogger("test", "silent");

function places(t: Test, role: LockedPlaces["role"] = "source"): LockedPlaces & { readonly folder: string } {
  const folder = t.testdir({ state: {}, other: {}, run: {} });
  return { role, folder, stateDirectory: join(folder, "state"), runtimeDirectory: join(folder, "run") };
}

function logged(): { readonly log: Logger; readonly lines: string[] } {
  const lines: string[] = [];
  return { log: createLogger("test", "info", { write: (line) => lines.push(line) }), lines };
}

/** Starts another process that locks the directories and stays, perhaps in another network namespace. */
async function holder(t: Test, { role, stateDirectory, runtimeDirectory }: LockedPlaces, prefix: string[] = []) {
  const [program = "", ...rest] = [...prefix, process.execPath, HOLDER, role, stateDirectory, runtimeDirectory];
  const child = spawn(program, rest, { stdio: ["pipe", "pipe", "inherit"] });
  t.teardown(() => child.kill("SIGKILL"));
  const [said] = await bounded(once(child.stdout, "data"), STARTS_MS, "the lock of the other process");
  return { child, said: String(said).trim() };
}

t.test("a directory is locked once, whatever its path, until its lock is released", async (t) => {
  const first = places(t);
  const link = join(first.folder, "link");
  symlinkSync(first.stateDirectory, link);
  const other = { ...first, runtimeDirectory: join(first.folder, "other") };
  const lock = await lockDirectories(first, silent);
  for (const stateDirectory of [first.stateDirectory, link, `${first.stateDirectory}/../state`])
    await t.rejects(lockDirectories({ ...other, stateDirectory }, silent), { code: "agent-running" }, stateDirectory);
  t.same(readdirSync(first.stateDirectory), [], "nothing is written for the lock");
  lock.release();
  (await lockDirectories({ ...other, stateDirectory: link }, silent)).release();
});

t.test("an agent that is refused has locked nothing", async (t) => {
  const first = places(t);
  const other = join(first.folder, "other");
  const lock = await lockDirectories(first, silent);
  await t.rejects(lockDirectories({ ...first, stateDirectory: other }, silent), {
    code: "agent-running",
    message: /^runtimeDirectory /,
  });
  (await lockDirectories({ ...first, stateDirectory: other, runtimeDirectory: other }, silent)).release();
  lock.release();
});

t.test("agents of both kinds share a runtime directory, and do not share a state directory", async (t) => {
  const source = places(t);
  const destination = { ...source, role: "destination" } as const;
  const lock = await lockDirectories(source, silent);
  await t.rejects(lockDirectories(destination, silent), { code: "agent-running", message: /^stateDirectory / });
  (await lockDirectories({ ...destination, stateDirectory: join(source.folder, "other") }, silent)).release();
  lock.release();
});

t.test("an agent that finds a lock is told whose it is, and a process that is killed leaves no lock", async (t) => {
  const place = places(t);
  const { child, said } = await holder(t, place);
  t.equal(said, "locked");
  await t.rejects(lockDirectories(place, silent), {
    code: "agent-running",
    message: new RegExp(`stateDirectory ${place.stateDirectory} is in use: process ${child.pid} \\(.*lock-holder`),
    advice: /One agent of a kind/,
  });
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await bounded(ended, STARTS_MS, "the end of the other process");
  (await lockDirectories(place, silent)).release();
});

t.test(
  "an agent in another network namespace is found by the lock on the directory",
  { skip: canMakeNamespaces() ? false : "needs root" },
  async (t) => {
    const place = places(t);
    const { child, said } = await holder(t, place, ["unshare", "--net"]);
    t.equal(said, "locked");
    await t.rejects(lockDirectories(place, silent), {
      code: "agent-running",
      message: new RegExp(`process ${child.pid} \\(`),
    });
  },
);

t.test("names that any user of the host may take do not keep an agent from its directories", async (t) => {
  const place = places(t);
  for (const [purpose, directory] of [
    ["state", place.stateDirectory],
    ["source runtime", place.runtimeDirectory],
  ] as const) {
    const { dev, ino } = statSync(directory);
    const name = `ferry ${purpose} ${dev} ${ino} `.padEnd(107, ".");
    const server = createServer().listen(`\0${name}`);
    await once(server, "listening");
    t.teardown(() => server.close());
  }
  const { log, lines } = logged();
  (await lockDirectories(place, log)).release();
  t.same(lines, []);
  await t.rejects(
    lockDirectories(place, silent, ["/nowhere/flock"]),
    { code: "agent-running" },
    "where there are only names, names count",
  );
});

t.test("the file that is locked is the agent's alone, and a link in its place is not followed", async (t) => {
  const place = places(t);
  (await lockDirectories(place, silent)).release();
  const file = join(place.runtimeDirectory, ".source.lock");
  t.equal(statSync(file).mode & 0o777, 0o600);
  rmSync(file);
  symlinkSync(join(place.folder, "elsewhere"), file);
  await t.rejects(lockDirectories(place, silent), { code: "state-directory", message: /ELOOP/ });
  t.same(readdirSync(place.folder).sort(), ["other", "run", "state"]);
});

t.test("an agent that cannot lock the directory by flock starts, and logs so", async (t) => {
  const place = places(t);
  const missing = logged();
  (await lockDirectories(place, missing.log, ["/nowhere/flock"])).release();
  t.match(missing.lines.join(), /network namespace only/);
  mkdirSync(join(place.folder, "bin"));
  const failing = join(place.folder, "bin", "flock");
  writeFileSync(failing, "#!/bin/sh\nexit 71\n");
  chmodSync(failing, 0o755);
  const failed = logged();
  (await lockDirectories(place, failed.log, [failing])).release();
  t.match(failed.lines.join(), /flock ended with 71/);
});
