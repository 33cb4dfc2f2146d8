/**
 * Tests commands of guest definitions that are more than QEMU, with real QEMUs: a program that executes QEMU or waits
 * for it is taken, and one that leaves QEMU is refused. A refused command leaves nothing behind, and the fault says
 * why.
 */
import { once } from "node:events";
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { basename, join } from "node:path";
import t, { type Test } from "tap";
import { GuestProcess } from "../../../agent-destination/guest/guest-process.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { type Clock, systemClock } from "../../../shared/runtime/clock.ts";
import { eventually } from "../../support/bounded.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { folder } from "../../support/link-fixtures.ts";
import { atTeardown } from "../../support/teardown.ts";

t.setTimeout(240_000);
const QEMU = "qemu-system-x86_64";
const MACHINE = "-M pc-q35-8.1 -accel tcg -m 16 -nodefaults -no-user-config -display none".split(" ");
const STARTS_WITHIN_MS = 60_000;
const ENDS = { timeoutMs: 20_000 };

interface Tried {
  readonly directory: string;
  /** Starts the guest by this program, with QEMU's arguments and further ones. */
  start(program: readonly string[], extra?: readonly string[], timeoutMs?: number): Promise<GuestProcess>;
  /** Makes a shell script of these lines, to which QEMU's arguments are handed. @returns its path */
  script(...lines: readonly string[]): string;
  /** The processes with the test's directory in their command lines, except for the reader of QEMU's output. */
  left(): readonly string[];
}

function tried(t: Test, clock: Clock = systemClock): Tried {
  const directory = folder(t);
  const qmp = join(directory, "web.qmp");
  // every process with the mark of a migration is ended, also one that another run of this test has started here
  const migration = basename(directory);
  const arguments_ = [...MACHINE, "-qmp", `unix:${qmp},server=on,wait=off`];
  const processes = (): readonly { pid: number; command: string }[] =>
    readdirSync("/proc")
      .map(Number)
      .filter((pid) => Number.isInteger(pid) && pid !== process.pid)
      .map((pid) => ({ pid, command: read(`/proc/${pid}/cmdline`).replaceAll("\0", " ") }))
      // the reader of QEMU's output ends when it has read everything: test/shared/runtime/guest/guest-log.test.ts
      .filter(({ command }) => command.includes(directory) && !command.includes(" ferry-guest-log "));
  const killLeft = (): void => {
    for (const { pid } of processes())
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // the process has ended meanwhile
      }
  };
  const forget = atTeardown(killLeft);
  t.teardown(() => {
    forget();
    killLeft();
  });
  return {
    directory,
    start: (program, extra = [], timeoutMs = STARTS_WITHIN_MS) => {
      const [first = "", ...rest] = program;
      const command = [first, ...rest, ...arguments_, ...extra] as const;
      const definition = { name: "web", qmp, directory, command, digest: "" };
      const { signal } = new AbortController();
      return GuestProcess.start(definition, { migration, runtimeDirectory: directory, timeoutMs, signal, clock });
    },
    script: (...lines) => {
      const path = join(directory, "wrapper");
      writeFileSync(path, ["#!/bin/sh", ...lines, ""].join("\n"));
      chmodSync(path, 0o755);
      return path;
    },
    // the reader of the log ends when it has written the last words
    left: () => processes().flatMap(({ command }) => (command.includes(".qemu.log") ? [] : [command])),
  };
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

/** Waits for a start to fail. @returns its fault, once nothing of the start is left */
async function refused(t: Test, from: Tried, start: Promise<GuestProcess>): Promise<MigrationFault> {
  const fault = await start.then(
    () => new MigrationFault("internal", "it was taken"),
    (thrown: unknown) => MigrationFault.from(thrown),
  );
  t.same(from.left(), [], "nothing of the start runs");
  t.same(
    readdirSync(from.directory).filter((name) => /qmp|log/.test(name)),
    [],
    "no file is left",
  );
  return fault;
}

const ended = (guest: GuestProcess): Promise<true> =>
  eventually(async () => ((await guest.hasEnded()) ? true : undefined), { ...ENDS, what: "the end of QEMU" });

for (const [what, lines] of [
  ["executes QEMU", [`exec ${QEMU} "$@"`]],
  ["waits for QEMU", [`${QEMU} "$@"`, "exit 0"]],
  ["waits for QEMU in the background", [`${QEMU} "$@" &`, "wait"]],
] as const)
  t.test(`a program that ${what} is taken, and its QEMU is the guest's process`, async (t) => {
    const from = tried(t);
    const guest = await from.start([from.script(...lines)]);
    t.match(read(`/proc/${guest.process.pid}/comm`), /^qemu-system/, "the record names QEMU's process");
    t.match(read(`/proc/${guest.process.pid}/cmdline`), /-incoming\0defer/);
    t.equal(await guest.hasEnded(), false);
    await guest.discard();
    t.same(from.left(), [], "nothing of the command runs");
    t.same(readdirSync(from.directory), ["wrapper"]);
  });

t.test("the end of QEMU is noticed while a program waits for QEMU", async (t) => {
  const from = tried(t);
  const guest = await from.start([from.script(`${QEMU} "$@"`, "sleep 600")]);
  process.kill(guest.process.pid, "SIGKILL");
  await ended(guest);
  await guest.discard();
  t.same(from.left(), []);
});

t.test("a program that leaves a QEMU which was found before does no harm", async (t) => {
  const from = tried(t);
  const leaves = join(from.directory, "leaves");
  const guest = await from.start([from.script(`${QEMU} "$@" &`, `while [ ! -e ${leaves} ]; do sleep 0.1; done`)]);
  writeFileSync(leaves, "");
  const hasLeft = (): true | undefined => (from.left().length === 1 ? true : undefined);
  await eventually(hasLeft, { ...ENDS, what: "the end of the program" });
  t.equal(await guest.hasEnded(), false);
  t.match(await guest.qmp.execute("query-status"), { status: "inmigrate" });
  await guest.discard();
  t.same(from.left(), []);
});

t.test("a QEMU that does not quit is ended, and so is the program that waits for it", async (t) => {
  const from = tried(t);
  const guest = await from.start([from.script(`${QEMU} "$@"`, "exit 0")]);
  process.kill(guest.process.pid, "SIGSTOP");
  await guest.discard();
  t.same(from.left(), []);
});

t.test("a program that starts QEMU again and again ends with its migration", async (t) => {
  const from = tried(t);
  const guest = await from.start([from.script(`while :; do ${QEMU} "$@"; done`)]);
  await guest.discard();
  t.same(from.left(), []);
});

for (const [what, lines, extra] of [
  ["starts QEMU in the background", [`${QEMU} "$@" &`], []],
  ["starts QEMU in a session of its own", [`setsid ${QEMU} "$@" &`], []],
  ["makes QEMU a daemon", [`${QEMU} "$@" -daemonize`], []],
  ["fails after it has started QEMU in the background", [`${QEMU} "$@" &`, "exit 3"], []],
] as const)
  t.test(`a program that ${what} is refused with the reason`, async (t) => {
    const from = tried(t);
    const fault = await refused(t, from, from.start([from.script(...lines)], extra));
    t.match(fault, { code: "qemu-start", message: /starts QEMU at the destination and leaves it/, advice: /exec/ });
  });

t.test("a QEMU that makes itself a daemon is refused with the reason", async (t) => {
  const from = tried(t);
  const fault = await refused(t, from, from.start([QEMU], ["-daemonize"]));
  t.match(fault, { code: "qemu-start", message: /leaves it/, advice: /-daemonize/ });
});

t.test("a program that does not pass on the agent's arguments is refused with the reason", async (t) => {
  const from = tried(t);
  const script = from.script(
    `exec ${QEMU} ${MACHINE.join(" ")} -S -qmp unix:${from.directory}/web.qmp,server,wait=off`,
  );
  const fault = await refused(t, from, from.start([script]));
  t.match(fault, { code: "qemu-start", message: /is prelaunch at its start .*-S -incoming defer/, advice: /"\$@"/ });
});

for (const [what, extra, words] of [
  ["has no such machine", ["-M", "pc-q35-99.0"], /status 1\).*pc-q35-99\.0/s],
  [
    "lacks a directory that it shares",
    ["-virtfs", "local,path=/nowhere/at/all,mount_tag=m,security_model=none"],
    /nowhere/,
  ],
  ["has a display port that is taken", [], /Failed to find an available port|Address already in use/],
] as const)
  t.test(`a QEMU that ${what} is refused with its own words`, async (t) => {
    const from = tried(t);
    const first = extra.length > 0 ? undefined : await takenDisplay(t);
    const fault = await refused(t, from, from.start([QEMU], first === undefined ? extra : ["-vnc", first]));
    t.match(fault, { code: "qemu-start", message: words, advice: /by hand/ });
  });

/** Takes the port of a display. @returns the display */
async function takenDisplay(t: Test): Promise<string> {
  const server = createServer();
  for (let display = 70; display < 99; display++) {
    const listens = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(5900 + display, "127.0.0.1", () => resolve(true));
    });
    if (!listens) continue;
    t.teardown(() => server.close());
    return `127.0.0.1:${display}`;
  }
  throw new RangeError("no port is free");
}

t.test("a program that does not exist, and one that is killed, are reported as such", async (t) => {
  const from = tried(t);
  t.match(await refused(t, from, from.start(["qemu-system-of-nobody"])), {
    code: "qemu-start",
    message: /ended at its start \(status 127\): .*qemu-system-of-nobody: not found/,
  });
  t.match(await refused(t, from, from.start([from.script("kill -KILL $$")])), { message: /\(by SIGKILL\)/ });
});

t.test("a start that has failed does not connect to the next QEMU of the guest", async (t) => {
  const clock = new FakeClock();
  const from = tried(t, clock);
  const failed = refused(t, from, from.start(["false"]));
  await clock.walkUntil(failed);
  await failed;
  const path = join(from.directory, "web.qmp");
  const server = createServer().listen(path);
  t.teardown(() => server.close());
  await once(server, "listening");
  let connections = 0;
  server.on("connection", () => connections++);
  await clock.advance(2 * STARTS_WITHIN_MS);
  // a connection of the agent would be taken before this one
  const own = connect(path);
  await once(own, "connect");
  own.destroy();
  await eventually(() => connections > 0 || undefined, { ...ENDS, what: "the connection of this test" });
  t.equal(connections, 1, "the agent does not connect any more");
});

t.test("a QEMU that waits for a client is reported with its own words when its time is over", async (t) => {
  const from = tried(t);
  const serial = ["-serial", `unix:${from.directory}/web.serial,server=on`];
  const fault = await refused(t, from, from.start([QEMU], serial, 3000));
  t.match(fault, { message: /does not answer its monitor.*QEMU waiting for connection on/s, advice: /by hand/ });
});

t.test("the last words of a QEMU that ends later are added to the fault", async (t) => {
  const from = tried(t);
  const guest = await from.start([QEMU]);
  process.kill(guest.process.pid, "SIGTERM");
  await ended(guest);
  t.match(await guest.endFault(), { code: "qemu-failed", message: /ended: .*terminating on signal 15/ });
  const closed = new MigrationFault("qmp-disconnected", "QEMU closed its monitor");
  t.match(await guest.explain(closed), { code: "qemu-failed", message: /closed its monitor; .*terminating on signal/ });
  const other = new MigrationFault("peer-lost", "The link was cut");
  t.equal(await guest.explain(other), other, "a fault with another reason is left alone");
  await guest.discard();
  t.notOk(existsSync(guest.logPath));
});

t.test("a command has the agent's environment, without what is only for the agent", async (t) => {
  const { directory, start, script } = tried(t);
  const given = {
    NOTIFY_SOCKET: "/run/systemd/notify",
    WATCHDOG_USEC: "1",
    FERRY_TLS_KEY: "/etc/ferry/key",
    WEB: "yes",
  };
  Object.assign(process.env, given);
  t.teardown(() => {
    for (const name of Object.keys(given)) delete process.env[name];
  });
  const guest = await start([script(`env > ${join(directory, "environment")}`, `exec ${QEMU} "$@"`)]);
  const names = readFileSync(join(directory, "environment"), "utf8")
    .split("\n")
    .map((line) => line.split("=")[0]);
  t.ok(names.includes("WEB") && names.includes("PATH"));
  t.same(
    names.filter((name) => name !== undefined && /^(NOTIFY|WATCHDOG|FERRY)_/.test(name)),
    ["FERRY_MIGRATION"],
    "only the mark of its migration is there",
  );
  await guest.discard();
});
