/** Tests the units of systemd/ and the files beside them, as text and with systemd's own programs. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { runInNewContext } from "node:vm";
import t from "tap";
import { packageRoot } from "../../shared/runtime/package-root.ts";

const folder = join(packageRoot(), "systemd");
const unitNames = ["ferry-source", "ferry-destination"];
const HELPER = "ferry-helper@";
const GUEST = "ferry-guest@";
const read = (name: string): string => readFileSync(join(folder, name), "utf8");

/** Reads the settings of a unit, and for each name its values in order. */
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
  const most = { "ferry-source": 1.6, "ferry-destination": 1.6, [GUEST]: 3 };
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

t.test("stopping the destination agent ends no guest, and stopping an agent clears no guest's socket", async (t) => {
  t.same(settings(read("ferry-destination.service")).get("KillMode"), ["process"]);
  for (const name of unitNames) {
    const unit = settings(read(`${name}.service`));
    t.notOk(unit.has("RuntimeDirectory"), `${name}: systemd would clear the directory, or take it from its group`);
    t.same(unit.get("NotifyAccess"), ["all"], `${name}: readiness comes from a child`);
    t.notOk(unit.has("MemoryDenyWriteExecute"), `${name}: V8 compiles at run time`);
  }
});

t.test("an agent whose event loop hangs is killed without a core dump, and started again", async (t) => {
  for (const name of unitNames) {
    const unit = settings(read(`${name}.service`));
    t.same(unit.get("WatchdogSec"), ["30"], name);
    t.same(unit.get("WatchdogSignal"), ["SIGKILL"], name);
    t.same(unit.get("Restart"), ["on-failure"], `${name}: a kill by the watchdog counts as a failure`);
  }
});

t.test("a guest's helper unit allows the agent's devices, and outlives what started it", tools, async (t) => {
  const text = read(`${HELPER}.service`);
  const unit = settings(text);
  for (const key of ["DevicePolicy", "DeviceAllow", "User", "Group"])
    t.same(unit.get(key), settings(read("ferry-destination.service")).get(key), key);
  t.same(unit.get("Delegate"), ["yes"], "user ferry could not move a process into the unit otherwise");
  t.same(unit.get("ExitType"), ["cgroup"], "the guest would end with what holds the unit open otherwise");
  t.match(
    unit.get("ExecCondition")?.[0],
    "--property=ExitType",
    "a systemd that does not know ExitType starts no such unit",
  );
  for (const name of [HELPER, GUEST]) {
    const file = join(t.testdir({ [`${name}.service`]: read(`${name}.service`) }), `${name}.service`);
    const verified = spawnSync("/usr/bin/systemd-analyze", ["verify", "--man=no", file], { encoding: "utf8" });
    t.same(
      verified.stderr.split("\n").filter((line) => line.includes("ferry")),
      [],
      name,
    );
  }
});

t.test("a guest's own user is not an agent's, sees no directory of an agent, and is in no group of one", async (t) => {
  const unit = settings(read(`${GUEST}.service`));
  t.same(unit.get("User"), ["guest-%i"], "the default of a template would be one user for all guests");
  t.same(unit.get("DynamicUser"), ["yes"]);
  t.same(unit.get("SupplementaryGroups"), ["kvm"]);
  t.notOk(unit.has("Group"));
  t.same(unit.get("UMask"), ["0007"], "the agents' group reaches the guest's sockets");
  const hidden = (unit.get("InaccessiblePaths") ?? []).flatMap((line) => line.split(" "));
  for (const name of unitNames) {
    const agent = settings(read(`${name}.service`));
    for (const place of agent.get("StateDirectory") ?? [])
      t.ok(
        hidden.some((path) => `/var/lib/${place}/`.startsWith(`${path.slice(1)}/`)),
        place,
      );
  }
  for (const place of ["-/etc/ferry", "-/run/ferry"]) t.ok(hidden.includes(place), place);
  t.match(unit.get("ExecStart"), ["/bin/sh /run/ferry-commands/%i"]);
  t.match(
    read("ferry.tmpfiles"),
    /^d \/run\/ferry-guests 0750 root ferry -$/m,
    "the directory is root's, since root would otherwise follow links in it",
  );
  t.match(read("ferry.tmpfiles"), /^d \/run\/ferry-commands 0755 ferry ferry -$/m);
});

t.test("polkit lets user ferry do with the units of guests what it has to, and nothing else", async (t) => {
  type Rule = (action: object, subject: object) => string | undefined;
  const rules: Rule[] = [];
  const polkit = { addRule: (rule: Rule) => void rules.push(rule), Result: { YES: "yes", NOT_HANDLED: "not handled" } };
  runInNewContext(read("ferry-guests.rules"), { polkit });
  const manageUnits = "org.freedesktop.systemd1.manage-units";
  const asked = (unit: string | undefined, verb: string | undefined, user = "ferry", id = manageUnits) =>
    rules[0]?.({ id, lookup: (name: string) => ({ unit, verb })[name] }, { user });
  t.equal(rules.length, 1);
  for (const verb of ["start", "stop", "kill", "reload", "reset-failed"])
    t.equal(asked("ferry-guest@web.1_a-b.service", verb), "yes", verb);
  t.equal(asked("ferry-helper@web.1_a-b-0123abcd.service", "start"), "yes");
  for (const verb of ["restart", "set-property", "reload-or-restart", undefined])
    t.equal(asked("ferry-guest@web.service", verb), "not handled", String(verb));
  for (const verb of ["stop", "kill", "reload", "reset-failed", "restart"])
    t.equal(asked("ferry-helper@web-0123abcd.service", verb), "not handled", `${verb} of a helper`);
  for (const unit of [
    "ferry-guest-web-0123abcd.scope",
    "ferry-guest@web.scope",
    "ferry-guest@.service",
    "ferry-guest@..service",
    "ferry-guest@...service",
    "ferry-helper@.web.service",
    "x-ferry-guest@web.service",
    "ferry-guest@web.service.d",
    "ferry-guest@web\\x2f.service",
    "ferry-guest@web.service\nssh.service",
    "ssh.service",
    undefined,
  ])
    for (const verb of ["start", "stop", "kill"]) t.equal(asked(unit, verb), "not handled", `${verb} ${unit}`);
  t.equal(asked("ferry-guest@web.service", "start", "nobody"), "not handled");
  t.equal(asked("ferry-guest@web.service", "start", "guest-web"), "not handled");
  t.equal(
    asked("ferry-guest@web.service", "start", "ferry", "org.freedesktop.systemd1.manage-unit-files"),
    "not handled",
  );
});

t.test("the directories are the ones that the agents use by default", async (t) => {
  for (const [name, role] of [
    ["ferry-source", "source"],
    ["ferry-destination", "destination"],
  ]) {
    const unit = settings(read(`${name}.service`));
    t.ok(unit.get("ReadWritePaths")?.includes("/run/ferry"));
    t.same(unit.get("StateDirectory"), [`ferry/${role}`]);
    t.same(unit.get("User"), ["ferry"]);
  }
  t.match(read("ferry.tmpfiles"), /^d \/run\/ferry 0700 ferry ferry -$/m);
  t.match(read("ferry.tmpfiles"), /^d \/etc\/ferry\/guests 0750 root ferry -$/m);
});

t.test(
  "systemd understands the files for its sysusers and tmpfiles",
  { skip: existsSync("/usr/bin/systemd-sysusers") ? false : "no systemd" },
  async (t) => {
    const root = t.testdir({ etc: {}, usr: {} });
    execFileSync("/usr/bin/systemd-sysusers", [`--root=${root}`, join(folder, "ferry.sysusers")]);
    t.match(readFileSync(join(root, "etc/passwd"), "utf8"), /^ferry:.*:\/var\/lib\/ferry:/m);
    t.match(readFileSync(join(root, "etc/group"), "utf8"), /^kvm:.*ferry/m);
    t.notMatch(
      readFileSync(join(root, "etc/passwd"), "utf8"),
      /^guest/m,
      "the unit makes the users of guests, or the administrator does",
    );
    if (process.getuid?.() !== 0) return;
    execFileSync("/usr/bin/systemd-tmpfiles", [`--root=${root}`, "--create", join(folder, "ferry.tmpfiles")]);
    for (const made of ["run/ferry", "run/ferry-guests", "run/ferry-commands", "etc/ferry/guests", "var/lib/ferry"])
      t.ok(existsSync(join(root, made)), made);
  },
);

t.test("no unit writes a core file, which would have keys and the memory of guests", async (t) => {
  for (const name of [...unitNames, HELPER, GUEST])
    t.same(settings(read(`${name}.service`)).get("LimitCORE"), ["0"], name);
  for (const name of ["ferry-destination", HELPER, GUEST])
    t.same(settings(read(`${name}.service`)).get("OOMPolicy"), ["continue"], name);
});
