/**
 * Tests guests with users of their own: what the destination agent asks of systemd, with a stand-in for systemctl. A
 * real systemd is asked in test/systemd/guest-users.test.ts.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { GuestUnits } from "../../../agent-destination/guest/guest-units.ts";
import { StartedCommand } from "../../../agent-destination/guest/started-command.ts";
import { UnitRun } from "../../../agent-destination/guest/unit-run.ts";
import { parseSeenFiles } from "../../../shared/qemu/inspect/files-by-unit.ts";
import { Systemctl } from "../../../shared/qemu/inspect/guest-unit.ts";
import { parseGuest } from "../../../shared/runtime/guest/guest-definition.ts";
import { createLogger } from "../../../shared/runtime/log/log.ts";
import { bounded } from "../../support/bounded.ts";
import { folder } from "../../support/link-fixtures.ts";

const WITHIN_MS = 20_000;
const UNIT = "ferry-guest@web.service";

interface StandIn {
  readonly directory: string;
  readonly programs: string;
  readonly commandPath: string;
  /** Sets what `systemctl show` says from now on. */
  says(state: Readonly<Record<string, string | number>>): void;
  calls(): string;
}

/** @param start a line of shell that stands for `systemctl start` */
function standIn(t: Test, start = "exit 0"): StandIn {
  const directory = folder(t);
  const programs = join(directory, "bin");
  mkdirSync(programs);
  mkdirSync(join(directory, "run-commands"));
  const script = [
    "#!/bin/sh",
    `echo "$*" >>"${directory}/calls"`,
    `case "$*" in *show*) cat "${directory}/state";; *start*) ${start};; esac`,
    "",
  ];
  for (const name of ["systemctl", "busctl"]) {
    writeFileSync(join(programs, name), script.join("\n"));
    chmodSync(join(programs, name), 0o755);
  }
  const says: StandIn["says"] = (state) =>
    writeFileSync(
      join(directory, "state"),
      Object.entries(state)
        .map(([name, value]) => `${name}=${value}\n`)
        .join(""),
    );
  says({ LoadState: "loaded", ActiveState: "inactive", MainPID: 0, InvocationID: "" });
  const file = join(directory, "calls");
  return {
    ...{ directory, programs, says, commandPath: join(directory, "run-commands/web") },
    calls: () => (existsSync(file) ? readFileSync(file, "utf8") : ""),
  };
}

const started = ({ directory, programs, commandPath }: StandIn, ...command: string[]) =>
  UnitRun.start({
    ...{ unit: UNIT, guest: "web", commandPath, systemctl: new Systemctl(programs) },
    command: ["qemu", ...command],
    logPath: join(directory, "web.qemu.log"),
  });

t.test("the unit gets the command as it is, in a file that others read and only the agent writes", async (t) => {
  const host = standIn(t);
  const before = process.umask(0o077);
  t.teardown(() => process.umask(before));
  const run = await started(host, "-name", 'it\'s $HOME `id` "all"\nof it', "");
  t.equal(run.pid, 0);
  t.equal(statSync(host.commandPath).mode & 0o777, 0o644);
  const shown = readFileSync(host.commandPath, "utf8");
  const log = join(host.directory, "web.qemu.log");
  t.equal(shown, `exec >'${log}' 2>&1 </dev/null\nexec 'qemu' '-name' 'it'\\''s $HOME \`id\` "all"\nof it' ''\n`);
  t.match(host.calls(), /^--quiet --no-ask-password start ferry-guest@web\.service$/m);
});

t.test("a unit that has a process is left alone", async (t) => {
  const host = standIn(t);
  for (const active of ["active", "deactivating", "activating"]) {
    host.says({ LoadState: "loaded", ActiveState: active, MainPID: 7, InvocationID: "a" });
    await t.rejects(started(host), {
      code: "guest-busy",
      message: new RegExp(`^${UNIT} is ${active} at the destination`),
    });
  }
  t.notMatch(host.calls(), / start /);
  t.notOk(existsSync(host.commandPath));
});

t.test("a start that systemd does not permit is told apart from one that fails", async (t) => {
  const denied = standIn(t, 'echo "Interactive authentication required." >&2; exit 1');
  await t.rejects(started(denied), {
    code: "qemu-start",
    message: /ferry-guest@web\.service, the unit of web, .*: Interactive authentication required\.$/,
    advice: /ferry-guests\.rules is installed for polkit/,
  });
  const state = "LoadState=loaded\\nActiveState=failed\\nMainPID=0\\nInvocationID=b\\n";
  const other = standIn(t, `printf '${state}' >"$(dirname "$0")/../state"; echo "Job failed" >&2; exit 1`);
  await t.rejects(started(other), {
    code: "qemu-start",
    message: /Job failed$/,
    advice: /journalctl -u ferry-guest@web/,
  });
  t.match(other.calls(), /^--quiet --no-ask-password reset-failed ferry-guest@web\.service$/m);
});

t.test("systemd is asked how the command has ended", async (t) => {
  for (const [code, status, end] of [
    [1, 3, { code: 3, signal: null }],
    [2, 9, { code: null, signal: "SIGKILL" }],
    [3, 6, { code: null, signal: "SIGABRT" }],
  ] as const) {
    const state = `LoadState=loaded\\nActiveState=failed\\nExecMainCode=${code}\\nExecMainStatus=${status}\\n`;
    const host = standIn(t, `printf '${state}' >"$(dirname "$0")/../state"`);
    const { ended } = await started(host);
    t.same(await bounded(ended, WITHIN_MS, "the end of the command"), end);
    t.match(host.calls(), /reset-failed/, "systemd forgets the failure, so that it unloads the unit");
  }
});

t.test("where systemd does not know how the command has ended, the fault says so", async (t) => {
  const { directory, programs, commandPath } = standIn(t);
  const command = await StartedCommand.start({
    ...{ command: ["qemu"], guest: "web", migration: "m-1", logPath: join(directory, "web.qemu.log") },
    own: { unit: UNIT, commandPath, systemctl: new Systemctl(programs) },
  });
  await t.rejects(bounded(command.failure, WITHIN_MS, "the end of the command"), {
    code: "qemu-start",
    message: /ended at its start \(its exit status is not known\): qemu said nothing$/,
  });
});

t.test("a guest has its own unit where its monitor is in {guest}; a reason against it is logged once", async (t) => {
  const host = standIn(t);
  const runtime = join(host.directory, "run");
  const define = (qmp: string, ...more: string[]) =>
    parseGuest("web", "web.json", JSON.stringify({ name: "web", qmp, command: ["qemu", ...more] }), runtime);
  const own = define("{guest}/web.qmp", "-sandbox", "on,spawn=deny");
  const asked = async (options: object, definition = own) => {
    const lines: string[] = [];
    const log = createLogger("test", "info", { write: (line) => lines.push(line) });
    const places = { programs: host.programs, bootedBy: host.directory, unitsRuntimeDirectory: runtime };
    const units = new GuestUnits({ mode: "auto", ...places, ...options, log });
    const found = await units.ownUnit(definition, runtime);
    await units.ownUnit(definition, runtime);
    return { unit: found?.unit, commandPath: found?.commandPath, lines: lines.map((line) => JSON.parse(line)) };
  };
  t.same(await asked({}), { unit: UNIT, commandPath: `${runtime}-commands/web`, lines: [] });
  for (const [options, why, definition] of [
    [{}, /monitor elsewhere than in \{guest\}/, define("{runtime}/web.qmp", "-sandbox", "on,spawn=deny")],
    [{ mode: "off" }, /qemu\.scope is off/],
    [{ bootedBy: "/nowhere" }, /systemd does not run this host/],
    [{ unitsRuntimeDirectory: "/run/ferry" }, /is for runtimeDirectory \/run\/ferry, not /],
    [{ programs: "/nowhere" }, /systemd does not answer/],
  ] as const) {
    const { unit, lines } = await asked(options, definition);
    t.equal(unit, undefined);
    t.match(lines, [{ level: "warn", guest: "web", why, msg: /reaches what the agent reaches/ }]);
    t.equal(lines.length, 1);
  }
  host.says({ LoadState: "not-found" });
  t.match((await asked({})).lines, [{ why: "systemd says of ferry-guest@web.service: not-found" }]);
  await t.rejects(asked({ mode: "on" }), { code: "qemu-start", message: /user of its own: systemd says .* not-found/ });
  host.says({ LoadState: "loaded" });
  const { lines } = await asked({}, define("{guest}/web.qmp"));
  t.match(lines, [{ msg: /no -sandbox on/, advice: /-sandbox", "on,obsolete=deny,elevateprivileges=deny/ }]);
});

t.test("a list of open files is taken whole or not at all", async (t) => {
  const text = "/\n48 5 1 3 character special file\n2049 77 0 0 regular file\n6 9 fd 10 block special file\n";
  const lock = "lock:\t1: OFDLCK  ADVISORY  READ -1 00:2f:77 100 101\n";
  const seen = parseSeenFiles(`${text}${lock}end\n`);
  t.equal(seen?.folder, "/");
  t.same([...(seen?.inodes ?? [])], ["48:5", "2049:77", `block ${(0xfdn << 8n) | 0x10n}`]);
  t.same(seen?.locks, [lock.trimEnd()]);
  for (const cut of [text, `${text}end`, "end\n", "", `nowhere\n${text}end\n`]) t.equal(parseSeenFiles(cut), undefined);
  const major = parseSeenFiles("/\n6 9 12345 abcdef block special file\nend\n");
  // glibc puts 0x12345 and 0xabcdef together in this way
  t.same([...(major?.inodes ?? [])], [`block ${expectedDevice()}`]);
});

/** Computes makedev(0x12345, 0xabcdef) by the bits of the manual: minor 0-7, major 8-19, minor 20-43, major 44-63. */
function expectedDevice(): bigint {
  const [major, minor] = [0x12345n, 0xabcdefn];
  return (minor % 256n) + (major % 4096n) * 2n ** 8n + (minor / 256n) * 2n ** 20n + (major / 4096n) * 2n ** 44n;
}
