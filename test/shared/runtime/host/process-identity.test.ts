/** Tests how one process is told from another, and what proves that a process has ended. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import t from "tap";
import { hasEnded, identify, type ProcessTable } from "../../../../shared/runtime/host/process-identity.ts";

const BOOT = "0b8fd7b2-3a5e-4a0f-9a51-6f4b2f0c1d2e";
const OTHER_BOOT = "11111111-2222-3333-4444-555555555555";
const PID = 4711;

/** Makes /proc/PID/stat of a process whose name looks like the fields after it. */
const stat = ({ state = "S", threads = 3, start = 8150 } = {}): string =>
  `${PID} (qemu) Z 1 (x) ${state} 1 ${PID} ${PID} 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 ${threads} 0 ${start} 9 9\n`;

const failing = (code: string) => (): never => {
  throw Object.assign(new RangeError(`${code}: made up`), { code });
};

interface MadeUp {
  readonly boot?: () => string;
  readonly stat?: () => string;
  readonly isKnown?: () => boolean;
}

/** Makes a host whose /proc says what a test makes up. */
function host(made: MadeUp): ProcessTable {
  return {
    read: async (path) => {
      if (path === "/proc/sys/kernel/random/boot_id") return (made.boot ?? (() => `${BOOT}\n`))();
      if (path !== `/proc/${PID}/stat`) throw new TypeError(`${path} was not expected`);
      return (made.stat ?? stat)();
    },
    isKnown: made.isKnown ?? (() => false),
  };
}

const identity = `${BOOT}/${PID}/8150`;
const qemu = { pid: PID, identity };

t.test("a process has one identity while it lives, and none afterwards", async (t) => {
  const child = spawn(process.execPath, ["-e", "process.stdin.resume()"]);
  await once(child, "spawn");
  const pid = child.pid ?? 0;
  const first = await identify(pid);
  t.match(first, /^[0-9a-f-]{36}\/\d+\/\d+$/);
  t.equal(await identify(pid), first);
  t.not(await identify(process.pid), first);
  t.equal(await hasEnded({ pid, identity: first ?? "" }), false);
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
  t.equal(await identify(pid), undefined);
  t.equal(await hasEnded({ pid, identity: first ?? "" }), true);
  for (const none of [0, -1]) t.equal(await identify(none), undefined);
});

t.test("a process that has ended counts as ended, although nobody has waited for it", async (t) => {
  // the shell would wait for its child, but the program in its place does not, and the child ends only after that
  const script = `(until [ "$(cat /proc/$$/comm)" = cat ]; do :; done) & echo $!; exec cat`;
  const parent = spawn("sh", ["-c", script], { stdio: ["pipe", "pipe", "inherit"] });
  const [printed] = await once(parent.stdout.setEncoding("utf8"), "data");
  const pid = Number(printed);
  while ((await identify(pid)) !== undefined);
  t.equal(process.kill(pid, 0), true, "the kernel still knows its number");
  parent.stdin.end();
  await once(parent, "exit");
});

t.test("a name that looks like the fields after it is skipped", async (t) => {
  t.equal(await identify(PID, host({})), identity);
});

t.test("a zombie has ended only when none of its other threads is left", async (t) => {
  for (const state of ["Z", "X"]) {
    t.equal(await identify(PID, host({ stat: () => stat({ state, threads: 1 }) })), undefined, state);
    t.equal(await identify(PID, host({ stat: () => stat({ state, threads: 0 }) })), undefined, state);
    t.equal(
      await identify(PID, host({ stat: () => stat({ state, threads: 2 }) })),
      identity,
      "a thread is still in the kernel",
    );
  }
});

t.test("ENOENT and ESRCH prove the end of a process", async (t) => {
  for (const code of ["ENOENT", "ESRCH"]) {
    t.equal(await identify(PID, host({ stat: failing(code) })), undefined, code);
    t.equal(await hasEnded(qemu, host({ stat: failing(code) })), true, code);
  }
});

t.test("any other error of /proc proves no end, since nobody can tell", async (t) => {
  for (const code of ["EMFILE", "ENFILE", "ENOMEM", "EACCES", "EPERM", "EIO"]) {
    const fault = {
      code: "internal",
      message: `Cannot tell whether process ${PID} lives: ${code}: made up`,
      advice: code === "EMFILE" || code === "ENFILE" ? /open no more files/ : /hidepid/,
    };
    await t.rejects(identify(PID, host({ stat: failing(code) })), fault);
    await t.rejects(hasEnded(qemu, host({ stat: failing(code) })), fault);
  }
  for (const text of ["", "4711", stat().slice(0, 40), "4711 (qemu) S 1 2 3"])
    await t.rejects(identify(PID, host({ stat: () => text })), { code: "internal", message: /stat says/ });
});

t.test("a process that /proc hides and the kernel knows has not ended", async (t) => {
  const hidden = host({ stat: failing("ENOENT"), isKnown: () => true });
  await t.rejects(identify(PID, hidden), { code: "internal", message: /Cannot tell/ });
  const silent = host({ stat: failing("ENOENT"), isKnown: failing("ENOSYS") });
  await t.rejects(hasEnded(qemu, silent), { code: "internal", message: /ENOSYS/ });
});

t.test("without a boot id nobody can tell, since a missing /proc is no end of its processes", async (t) => {
  for (const boot of [failing("ENOENT"), failing("EACCES"), () => "", () => "no boot id"]) {
    await t.rejects(identify(PID, host({ boot, stat: failing("ENOENT") })), { code: "internal", message: /boot_id/ });
    await t.rejects(hasEnded(qemu, host({ boot })), { code: "internal", message: /boot_id/ });
  }
});

t.test("a process has ended when another one has its number", async (t) => {
  t.equal(await hasEnded(qemu, host({})), false);
  t.equal(await hasEnded(qemu, host({ stat: () => stat({ start: 8151 }) })), true);
});

t.test("another boot proves the end, even where /proc does not tell about the number", async (t) => {
  const rebooted = host({ boot: () => OTHER_BOOT, stat: failing("EMFILE") });
  t.equal(await hasEnded(qemu, rebooted), true);
});

t.test("an identity that this program did not make proves nothing", async (t) => {
  for (const wrong of [
    "",
    "x",
    `${BOOT}/4712/8150`,
    `${BOOT}/${PID}/`,
    `${BOOT}/${PID}`,
    `/${PID}/8150`,
    `${identity}/1`,
  ])
    await t.rejects(hasEnded({ pid: PID, identity: wrong }, host({})), {
      code: "internal",
      message: /not the identity/,
    });
});
