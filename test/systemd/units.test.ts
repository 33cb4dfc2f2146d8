import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { runInNewContext } from "node:vm";
import t from "tap";
import { packageRoot } from "../../shared/runtime/package-root.ts";

const folder = join(packageRoot(), "systemd");
const unitNames = ["ferry-source", "ferry-destination"];
const read = (name: string): string => readFileSync(join(folder, name), "utf8");

/** Settings of a unit, the values of a name in order. */
function settings(text: string): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const line of text.split("\n")) {
    const parts = /^([A-Za-z]+)=(.*)$/.exec(line);
    if (parts?.[1] !== undefined) found.set(parts[1], [...(found.get(parts[1]) ?? []), parts[2] ?? ""]);
  }
  return found;
}

const tools = { skip: existsSync("/usr/bin/systemd-analyze") ? false : "there is no systemd-analyze" };

t.test("systemd finds nothing to complain about in the units", tools, async (t) => {
  for (const name of unitNames) {
    // the program is not installed where the tests run
    const text = read(`${name}.service`).replace(/^ExecStart=.*$/m, "ExecStart=/bin/true");
    const unit = join(t.testdir({ [`${name}.service`]: text }), `${name}.service`);
    const verified = spawnSync("/usr/bin/systemd-analyze", ["verify", "--man=no", unit], { encoding: "utf8" });
    const complaints = verified.stderr.split("\n").filter((line) => line.includes("ferry"));
    t.same(complaints, [], name);
    t.equal(verified.status, 0, `${name}: ${verified.stderr}`);
  }
});

t.test("the units stay as closed as they were measured to be", tools, async (t) => {
  const most = { "ferry-source": 2, "ferry-destination": 3 };
  for (const [name, limit] of Object.entries(most)) {
    const unit = join(folder, `${name}.service`);
    const offline = spawnSync("/usr/bin/systemd-analyze", ["security", "--offline=true", "--no-pager", unit], {
      encoding: "utf8",
    });
    const exposure = /Overall exposure level for .*: ([0-9.]+)/.exec(offline.stdout)?.[1];
    if (exposure === undefined) {
      t.comment(`this systemd cannot rate a unit offline: ${offline.stderr}`);
      continue;
    }
    t.comment(`${name}: exposure ${exposure} of 10`);
    t.ok(Number(exposure) <= limit, `${name}: ${exposure}`);
  }
});

t.test("stopping the destination agent ends no guest, and stopping either clears no socket of one", async (t) => {
  t.same(settings(read("ferry-destination.service")).get("KillMode"), ["process"]);
  for (const name of unitNames) {
    const unit = settings(read(`${name}.service`));
    t.same(unit.get("RuntimeDirectoryPreserve"), ["yes"], name);
    t.same(unit.get("NotifyAccess"), ["all"], `${name}: readiness comes from a child`);
    t.notOk(unit.has("MemoryDenyWriteExecute"), `${name}: V8 compiles at run time`);
  }
});

t.test("an agent whose event loop hangs is killed without a core dump, and started again", async (t) => {
  for (const name of unitNames) {
    const unit = settings(read(`${name}.service`));
    t.same(unit.get("WatchdogSec"), ["30"], name);
    t.same(unit.get("WatchdogSignal"), ["SIGKILL"], name);
    t.same(unit.get("Restart"), ["on-failure"], `${name}: which a watchdog's kill is`);
  }
});

t.test("a guest's unit allows the devices that the agent's does, and outlives what started it", tools, async (t) => {
  const text = read("ferry-guest@.service");
  const unit = settings(text);
  for (const key of ["DevicePolicy", "DeviceAllow", "User", "Group"])
    t.same(unit.get(key), settings(read("ferry-destination.service")).get(key), key);
  t.same(unit.get("Delegate"), ["yes"], "or user ferry could not move a process into it");
  t.same(unit.get("ExitType"), ["cgroup"], "or the guest would end with what holds the unit open");
  t.match(unit.get("ExecCondition")?.[0], "--property=ExitType", "and a systemd that does not know that starts none");
  const file = join(t.testdir({ "ferry-guest@.service": text }), "ferry-guest@.service");
  const verified = spawnSync("/usr/bin/systemd-analyze", ["verify", "--man=no", file], { encoding: "utf8" });
  t.same(
    verified.stderr.split("\n").filter((line) => line.includes("ferry")),
    [],
  );
});

t.test("polkit lets user ferry start the units of guests, and nothing else", async (t) => {
  type Rule = (action: object, subject: object) => string | undefined;
  const rules: Rule[] = [];
  const polkit = { addRule: (rule: Rule) => void rules.push(rule), Result: { YES: "yes", NOT_HANDLED: "not handled" } };
  runInNewContext(read("ferry-guests.rules"), { polkit });
  const manageUnits = "org.freedesktop.systemd1.manage-units";
  const asked = (unit: string | undefined, verb: string | undefined, user = "ferry", id = manageUnits) =>
    rules[0]?.({ id, lookup: (name: string) => ({ unit, verb })[name] }, { user });
  t.equal(rules.length, 1);
  t.equal(asked("ferry-guest@web.1_a-b-0123abcd.service", "start"), "yes");
  for (const verb of ["stop", "restart", "kill", "set-property", undefined])
    t.equal(asked("ferry-guest@web-0123abcd.service", verb), "not handled", String(verb));
  for (const unit of [
    "ferry-guest-web-0123abcd.scope",
    "ferry-guest@web.scope",
    "ferry-guest@.service",
    "x-ferry-guest@web.service",
    "ferry-guest@web.service.d",
    "ferry-guest@web\\x2f.service",
    "ssh.service",
    undefined,
  ])
    t.equal(asked(unit, "start"), "not handled", String(unit));
  t.equal(asked("ferry-guest@web.service", "start", "nobody"), "not handled");
  t.equal(
    asked("ferry-guest@web.service", "start", "ferry", "org.freedesktop.systemd1.manage-unit-files"),
    "not handled",
  );
});

t.test("the directories are those that the agents use by default", async (t) => {
  for (const [name, role] of [
    ["ferry-source", "source"],
    ["ferry-destination", "destination"],
  ]) {
    const unit = settings(read(`${name}.service`));
    t.same(unit.get("RuntimeDirectory"), ["ferry"]);
    t.same(unit.get("StateDirectory"), [`ferry/${role}`]);
    t.same(unit.get("User"), ["ferry"]);
  }
  t.match(read("ferry.tmpfiles"), /^d \/etc\/ferry\/guests 0750 root ferry -$/m);
});

t.test(
  "sysusers and tmpfiles are understood",
  { skip: existsSync("/usr/bin/systemd-sysusers") ? false : "no systemd" },
  async (t) => {
    const root = t.testdir({ etc: {}, usr: {} });
    execFileSync("/usr/bin/systemd-sysusers", [`--root=${root}`, join(folder, "ferry.sysusers")]);
    t.match(readFileSync(join(root, "etc/passwd"), "utf8"), /^ferry:.*:\/var\/lib\/ferry:/m);
    t.match(readFileSync(join(root, "etc/group"), "utf8"), /^kvm:.*ferry/m);
    if (process.getuid?.() !== 0) return;
    execFileSync("/usr/bin/systemd-tmpfiles", [`--root=${root}`, "--create", join(folder, "ferry.tmpfiles")]);
    for (const made of ["run/ferry", "etc/ferry/guests", "var/lib/ferry"]) t.ok(existsSync(join(root, made)), made);
  },
);

t.test("no unit writes a core file, which would have keys and the memory of guests", async (t) => {
  for (const name of [...unitNames, "ferry-guest@"])
    t.same(settings(read(`${name}.service`)).get("LimitCORE"), ["0"], name);
  for (const name of ["ferry-destination", "ferry-guest@"])
    t.same(settings(read(`${name}.service`)).get("OOMPolicy"), ["continue"], name);
});
