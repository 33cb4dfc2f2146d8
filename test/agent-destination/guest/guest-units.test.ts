/** Tests systemd's units for guests, with stand-ins for systemctl and busctl that write down what they are asked. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import type { Command } from "../../../agent-destination/guest/command.ts";
import { GuestUnits, type GuestUnitsOptions } from "../../../agent-destination/guest/guest-units.ts";
import { createLogger } from "../../../shared/runtime/log/log.ts";
import { bounded } from "../../support/bounded.ts";

const WITHIN_MS = 20_000;
/** A command that prints its own pid and its argument: a QEMU is looked for under the pid that was spawned. */
const SAYS: Command = ["/bin/sh", "-c", 'echo "$$ $0"', "a word; with 'all' in it"];

interface StandIns {
  readonly options: Pick<GuestUnitsOptions, "programs" | "bootedBy">;
  /** The words of every call, one call a line. */
  calls(): string;
}

/** @param fails the program that answers like a systemd that does not permit the call */
function standIns(t: Test, fails?: "systemctl" | "busctl"): StandIns {
  const folder = t.testdir({});
  for (const name of ["systemctl", "busctl"]) {
    const end = name === fails ? 'echo "Interactive authentication required." >&2; exit 1' : "exit 0";
    writeFileSync(join(folder, name), `#!/bin/sh\necho "${name} $*" >>"${folder}/calls"\n${end}\n`);
    chmodSync(join(folder, name), 0o755);
  }
  const file = join(folder, "calls");
  return {
    options: { programs: folder, bootedBy: folder },
    calls: () => (existsSync(file) ? readFileSync(file, "utf8") : ""),
  };
}

function unitsWith(options: Omit<GuestUnitsOptions, "log">): { readonly units: GuestUnits; readonly lines: string[] } {
  const lines: string[] = [];
  const log = createLogger("test", "info", { write: (line) => lines.push(line) });
  return { units: new GuestUnits({ ...options, log }), lines };
}

async function run(command: Command): Promise<{ pid: number; code: unknown; said: string; complained: string }> {
  const [program, ...args] = command;
  const child: ChildProcess = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: {} });
  const output = { said: "", complained: "" };
  child.stdout?.on("data", (text) => {
    output.said += String(text);
  });
  child.stderr?.on("data", (text) => {
    output.complained += String(text);
  });
  const [code] = await bounded(once(child, "close"), WITHIN_MS, "the end of the command");
  return { pid: child.pid ?? 0, code, ...output };
}

t.test("the guest of a user moves itself into an instance of the template, and keeps its pid", async (t) => {
  const { options, calls } = standIns(t);
  const { units } = unitsWith({ ...options, mode: "auto", isRoot: false });
  const { pid, said, complained, code } = await run(units.command(SAYS, "web.1_a-b"));
  t.equal(said, `${pid} a word; with 'all' in it\n`);
  t.equal(complained, "");
  t.equal(code, 0);
  const [start, attach, ...more] = calls().trimEnd().split("\n");
  const unit = /start (ferry-helper@web\.1_a-b-[0-9a-f]{8}\.service)$/.exec(start ?? "")?.[1];
  t.ok(unit, String(start));
  t.match(start, /^systemctl --quiet --no-ask-password start /, "nobody is asked for a password");
  t.match(attach, new RegExp(` org.freedesktop.systemd1.Manager AttachProcessesToUnit ssau ${unit}  1 ${pid}$`));
  t.same(more, []);
});

t.test("the guest of root asks for a transient scope", async (t) => {
  const { options, calls } = standIns(t);
  const { units } = unitsWith({ ...options, mode: "auto", isRoot: true });
  const { pid, said, complained } = await run(units.command(SAYS, "web"));
  const wanted =
    /Manager StartTransientUnit ssa\(sv\)a\(sa\(sv\)\) ferry-guest-web-[0-9a-f]{8}\.scope fail 3 PIDs au 1 (\d+) Slice s ferry-guests\.slice CollectMode s inactive-or-failed 0$/m;
  t.equal(wanted.exec(calls())?.[1], String(pid));
  t.match(complained, /systemd did not move process/, "the stand-in does not move the process");
  t.equal(said, `${pid} a word; with 'all' in it\n`, "the command is then started without a unit");
});

t.test("each start has a unit of its own", async (t) => {
  const { units } = unitsWith({ ...standIns(t).options, mode: "auto", isRoot: false });
  const names = [1, 2, 3].map(() => units.command(SAYS, "web")[5]);
  t.equal(new Set(names).size, 3);
});

t.test("what systemd does not permit is started without a unit in `auto`, and not at all in `on`", async (t) => {
  for (const [isRoot, fails] of [
    [true, "busctl"],
    [false, "busctl"],
    [false, "systemctl"],
  ] as const) {
    const { options } = standIns(t, fails);
    const plain = await run(unitsWith({ ...options, mode: "auto", isRoot }).units.command(SAYS, "web"));
    t.match(plain, { said: `${plain.pid} a word; with 'all' in it\n`, code: 0 });
    t.match(plain.complained, /Interactive authentication required/, "the reason is in the guest's log");
    const never = await run(unitsWith({ ...options, mode: "on", isRoot }).units.command(SAYS, "web"));
    t.match(never, { said: "", code: 1, complained: /Interactive authentication required/ });
  }
});

t.test("without systemd, or with the mode `off`, the command stays as it was", async (t) => {
  const { options } = standIns(t);
  const commands = [
    unitsWith({ ...options, mode: "off" }).units,
    unitsWith({ ...options, mode: "auto", bootedBy: "/nowhere" }).units,
    unitsWith({ ...options, mode: "auto", programs: "/nowhere" }).units,
  ].map((units) => units.command(SAYS, "web"));
  t.same(commands, [SAYS, SAYS, SAYS]);
});

t.test("a guest that is in the agent's own unit after all is logged once", async (t) => {
  const { options } = standIns(t);
  const { units, lines } = unitsWith({ ...options, mode: "auto" });
  await units.check(0, "gone");
  t.same(lines, [], "a process that has ended is not logged");
  await units.check(process.pid, "web");
  await units.check(process.pid, "web");
  t.equal(lines.length, 1);
  t.match(JSON.parse(lines[0] ?? ""), { level: "warn", guest: "web", msg: /agent's own unit/ });
  const off = unitsWith({ ...options, mode: "off" });
  await off.units.check(process.pid, "web");
  t.same(off.lines, []);
});
