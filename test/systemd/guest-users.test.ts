/**
 * Tests guests with users of their own, under a real systemd: two hosts with the units, the polkit rule, the users and
 * the directories of systemd/, and real QEMUs. Nothing of this is installed on the machine that runs the test.
 */
import { once } from "node:events";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { guestUnitName } from "../../shared/qemu/inspect/guest-unit.ts";
import { SANDBOX } from "../../shared/runtime/guest/qemu-options.ts";
import { eventually } from "../support/bounded.ts";
import { noSystemdHost, SystemdHost } from "../support/systemd-host.ts";

t.setTimeout(900_000);
const WITHIN_MS = 90_000;

type Name = "alpha" | "beta";
/** The ports of the source agent and of the destination agent, on the machine's loopback, which the hosts share. */
const PORTS: Record<Name, [number, number]> = { alpha: [0, 0], beta: [0, 0] };
/** The user of the guest that has a disk. Both hosts know the user by this number. */
const DB_USER = 7001;
const IMAGE = "/srv/shared/db/disk.raw";

interface Definition {
  readonly name: string;
  readonly qmp: string;
  readonly command: readonly string[];
}

const definition = (name: string, ...more: readonly string[]): Definition => ({
  name,
  qmp: `{guest}/${name}.qmp`,
  command: [
    ...["/usr/bin/qemu-system-x86_64", "-name", name, "-machine", "pc-q35-8.1", "-accel", "tcg", "-m", "64"],
    ...["-nodefaults", "-display", "none", "-sandbox", SANDBOX],
    ...["-qmp", `unix:{guest}/${name}.qmp,server=on,wait=off`, ...more],
  ],
});
const WEB = definition("web");
const DB = definition("db", "-drive", `file=${IMAGE},format=raw,if=virtio`);

/** Starts a guest as the administrator of a host does, by the unit that the agents use. */
function startByHand(host: SystemdHost, { name, command }: Definition): void {
  const words = command.map((word) => `'${word.replaceAll("{guest}", `/run/ferry-guests/${name}`)}'`);
  host.write(`/run/ferry-commands/${name}`, `exec ${words.join(" ")}\n`);
  host.must("systemctl", "start", guestUnitName(name));
}

/** Finds a port at which nobody listens. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

async function boot(t: Test, name: Name, shared: string): Promise<SystemdHost> {
  const host = await SystemdHost.boot({ name, shared });
  t.teardown(() => host.close());
  PORTS[name] = [await freePort(), await freePort()];
  host.must("useradd", "--system", "--uid", String(DB_USER), "guest-db");
  const places = "[Service]\nReadWritePaths=/srv/shared\n";
  for (const unit of ["ferry-source", "ferry-destination", "ferry-guest@db"]) {
    host.must("mkdir", "-p", `/etc/systemd/system/${unit}.service.d`);
    host.write(`/etc/systemd/system/${unit}.service.d/images.conf`, places);
  }
  for (const guest of [WEB, DB]) host.write(`/etc/ferry/guests/${guest.name}.json`, JSON.stringify(guest));
  host.must("install", "-d", "-m", "0755", "/etc/ferry/tls");
  host.write("/etc/ferry/tls/key.pem", "secret");
  host.must("chown", "ferry", "/etc/ferry/tls/key.pem");
  host.must("chmod", "0400", "/etc/ferry/tls/key.pem");
  host.must("systemctl", "daemon-reload");
  for (const [at, agent] of (["source", "destination"] as const).entries()) {
    const lines = [`FERRY_LISTEN=127.0.0.1:${PORTS[name][at]}`, "FERRY_TLS_INSECURE=true", "FERRY_REHEARSAL=false"];
    host.write(`/etc/ferry/${agent}.env`, [...lines, "FERRY_QMP_TIMEOUT=5s", ""].join("\n"));
    host.must("systemctl", "start", `ferry-${agent}`);
  }
  return host;
}

const ferry = (host: SystemdHost, from: Name, ...words: readonly string[]) =>
  host.run("/usr/local/bin/node", "/opt/ferry/dist/cli/main.js", `--agent=127.0.0.1:${PORTS[from][0]}`, ...words);

function requireMoved(hosts: Readonly<Record<Name, SystemdHost>>, name: string, from: Name, ...more: string[]): string {
  const to = from === "alpha" ? "beta" : "alpha";
  const said = ferry(hosts[from], from, "migrate", name, "--to", `127.0.0.1:${PORTS[to][1]}`, ...more);
  if (said.status !== 0) throw new Error(`${said.out}${said.error}${hosts.alpha.log()}${hosts.beta.log()}`);
  return said.out;
}

/** Lists the sockets and files of migrations that are left on a host. */
function filesLeft(host: SystemdHost): string {
  const names = ["*.stream", "*.incoming", "*.verify*", "*.monitor*", "open-files*"];
  const tests = names.flatMap((name) => ["-o", "-name", name]).slice(1);
  return host.must("find", "/run/ferry", "/run/ferry-guests", ...tests);
}

const pidOf = (host: SystemdHost, name: string): number => Number(host.property(guestUnitName(name), "MainPID"));
const fieldOf = (status: string, name: string): string => new RegExp(`^${name}:\\s*(.*)$`, "m").exec(status)?.[1] ?? "";

t.test("guests with users of their own move, and are kept apart", { skip: noSystemdHost() }, async (t) => {
  const shared = mkdtempSync(join(tmpdir(), "ferry-shared-"));
  t.teardown(() => rmSync(shared, { recursive: true, force: true }));
  // the directory is open, as a mounted storage is; the test's own folder is closed to others
  chmodSync(shared, 0o755);
  mkdirSync(join(shared, "db"));
  chmodSync(join(shared, "db"), 0o770);
  writeFileSync(join(shared, "db/disk.raw"), Buffer.alloc(1 << 20), { mode: 0o660 });
  const [alpha, beta] = [await boot(t, "alpha", shared), await boot(t, "beta", shared)];
  const hosts = { alpha, beta };
  const agentsGroup = Number(alpha.must("id", "-g", "ferry"));
  chownSync(join(shared, "db"), DB_USER, agentsGroup);
  chownSync(join(shared, "db/disk.raw"), DB_USER, agentsGroup);
  for (const guest of [WEB, DB]) startByHand(alpha, guest);
  await eventually(() => (/db +running[\s\S]*web +running/.test(ferry(alpha, "alpha", "guests").out) ? 1 : undefined), {
    timeoutMs: WITHIN_MS,
    what: `the source agent to see the guests: ${ferry(alpha, "alpha", "guests").out}`,
  });

  await t.test("each guest moves there and back, its memory compared, and its disk proven the same", async (t) => {
    for (const from of ["alpha", "beta"] as const) {
      t.match(requireMoved(hosts, "web", from, "--verify"), /verified +16 448 pages are identical/);
      t.match(requireMoved(hosts, "db", from), /db moved to/);
    }
    for (const host of [alpha, beta]) t.equal(filesLeft(host), "", "no file of the migrations is left");
    for (const name of ["web", "db"]) t.equal(pidOf(beta, name), 0, `${name} has ended there`);
  });

  await t.test("a guest whose user may have userfaultfd goes there by post-copy, and back", async (t) => {
    if (alpha.run("test", "-c", "/dev/userfaultfd").status !== 0)
      return t.comment("this kernel has no /dev/userfaultfd");
    for (const host of [alpha, beta]) {
      host.must("chmod", "0666", "/dev/userfaultfd");
      host.must("mkdir", "-p", "/etc/systemd/system/ferry-guest@web.service.d");
      host.write(
        "/etc/systemd/system/ferry-guest@web.service.d/postcopy.conf",
        "[Service]\nDeviceAllow=/dev/userfaultfd rw\n",
      );
      host.must("systemctl", "daemon-reload");
    }
    for (const from of ["alpha", "beta"] as const)
      t.match(requireMoved(hosts, "web", from, "--strategy", "postcopy"), /web moved to/);
    for (const host of [alpha, beta]) t.equal(filesLeft(host), "", "no file of the migrations is left");
  });

  await t.test("a QEMU that an agent has started belongs to its unit, without what is the agent's", async (t) => {
    const users = new Set([agentsGroup, 0]);
    for (const name of ["web", "db"]) {
      const pid = pidOf(alpha, name);
      const status = alpha.must("cat", `/proc/${pid}/status`);
      const [user = 0] = fieldOf(status, "Uid").split("\t").map(Number);
      t.notOk(users.has(user), `${name} has user ${user}, and nobody else has`);
      users.add(user);
      const groups = `${fieldOf(status, "Groups")} ${fieldOf(status, "Gid")}`.split(/\s+/).map(Number);
      t.notOk(groups.includes(agentsGroup) || groups.includes(0), `${name} is in the groups ${groups}`);
      t.match(
        {
          CapEff: fieldOf(status, "CapEff"),
          NoNewPrivs: fieldOf(status, "NoNewPrivs"),
          Seccomp: fieldOf(status, "Seccomp"),
        },
        { CapEff: /^0+$/, NoNewPrivs: "1", Seccomp: "2" },
      );
      t.match(alpha.must("cat", `/proc/${pid}/cgroup`), new RegExp(`ferry-guests.slice/${guestUnitName(name)}`));
      t.match(alpha.must("cat", `/proc/${pid}/limits`), /^Max core file size +0 +0 /m);
      const environment = alpha.must("cat", `/proc/${pid}/environ`).split("\0");
      t.same(
        environment.filter((one) => /^(NOTIFY_SOCKET|FERRY_|WATCHDOG|CREDENTIALS)/.test(one)),
        [],
      );
    }
  });

  await t.test("a guest that broke out reaches no other guest, and nothing of the agents", async (t) => {
    const pid = pidOf(alpha, "web");
    const [user = "", group = ""] = ["Uid", "Gid"].map((name) =>
      (fieldOf(alpha.must("cat", `/proc/${pid}/status`), name).split("\t")[0] ?? "").trim(),
    );
    const agent = alpha.property("ferry-source", "MainPID");
    const asGuest = ["setpriv", `--reuid=${user}`, `--regid=${group}`, "--clear-groups", "--"];
    const tries: Readonly<Record<string, readonly string[]>> = {
      "the monitor of another guest": ["ls", "/run/ferry-guests/db/db.qmp"],
      "the runtime directory": ["ls", "/run/ferry"],
      "the source's journal": ["ls", "/var/lib/ferry/source"],
      "the destination's journal": ["ls", "/var/lib/ferry/destination"],
      "the key": ["cat", "/etc/ferry/tls/key.pem"],
      "a definition": ["cat", "/etc/ferry/guests/db.json"],
      "another guest's disk": ["cat", IMAGE],
      "its own command": ["sh", "-c", "echo exec id >>/run/ferry-commands/web"],
      "another guest's unit": ["systemctl", "--no-ask-password", "stop", guestUnitName("db")],
      "an agent": ["sh", "-c", `kill -USR1 ${agent}`],
    };
    for (const [what, command] of Object.entries(tries)) {
      // in the host's namespaces, which a guest does not see, the guest's rights alone have to be enough
      t.not(alpha.run(...asGuest, ...command).status, 0, `${what}, in the namespaces of the host`);
      const there = ["nsenter", "-t", String(pid), "-m", "--", ...asGuest];
      t.not(alpha.run(...there, ...command).status, 0, `${what}, in the namespaces of its unit`);
    }
    // the users of the host read in ps what the file says; a guest sees no process of another one, and not the file
    const inside = ["nsenter", "-t", String(pid), "-m", "--", ...asGuest];
    t.not(alpha.run(...inside, "cat", "/run/ferry-commands/db").status, 0, "another guest's command");
    t.match(alpha.run(...inside, "cat", "/run/ferry-commands/web").out, /^exec /, "its own command is where it was");
    const own = ["nsenter", "-t", String(pid), "-m", "--", ...asGuest, "ls", "/run/ferry-guests/web/web.qmp"];
    t.equal(alpha.run(...own).status, 0, "the guest's own monitor is where it was looked for");
    t.equal(alpha.run("nsenter", "-t", String(pid), "-m", "--", "ls", "/run/ferry-guests").out, "web\n");
    t.equal(alpha.asFerry("cat", "/etc/ferry/tls/key.pem").out, "secret", "the agents can read what they need");
  });

  await t.test("a guest's directory is bounded, so that it fills no memory of the host", async (t) => {
    t.match(alpha.must("findmnt", "--noheadings", "-o", "FSTYPE,SIZE", "/run/ferry-guests/web"), /^tmpfs +64M$/);
  });

  await t.test("the agents' user may do with systemd what the rule says, and nothing else", async (t) => {
    const unit = "ferry-guest@other";
    beta.write("/run/ferry-commands/other", "exec sleep 1000\n");
    for (const [verb, ...flags] of [["start"], ["kill", "--signal=SIGCONT"], ["stop"], ["reset-failed"]] as const) {
      const said = beta.asFerry("systemctl", "--no-ask-password", ...flags, verb, unit);
      // a unit that has ended in order is unloaded, and has nothing to reset
      if (verb !== "reset-failed") t.equal(said.status, 0, `${verb}: ${said.error}`);
      else t.notMatch(said.error, /authentication/i);
    }
    for (const words of [
      ["restart", unit],
      ["start", "systemd-journald"],
      ["stop", "ferry-source"],
      ["start", "ferry-guest@..x"],
      ["set-property", "--runtime", unit, "MemoryMax=1G"],
    ])
      t.match(beta.asFerry("systemctl", "--no-ask-password", ...words), {
        status: /[1-9]/,
        error: /denied|authenticat/i,
      });
    t.not(beta.asFerry("systemd-run", "--no-ask-password", "true").status, 0);
  });

  await t.test("a QEMU that does not answer is ended through systemd, and the guest stays", async (t) => {
    const to = `127.0.0.1:${PORTS.beta[1]}`;
    t.equal(ferry(alpha, "alpha", "migrate", "web", "--to", to, "--detach").status, 0);
    const pid = await eventually(() => pidOf(beta, "web") || undefined, {
      timeoutMs: WITHIN_MS,
      what: "the QEMU at the destination",
    });
    beta.must("kill", "-STOP", String(pid));
    const list = () => ferry(alpha, "alpha", "list", "--json").out;
    const id = /"id": ?"([0-9a-f]{12})"[^}]*"state": ?"(?!released)/.exec(list())?.[1];
    ferry(alpha, "alpha", "cancel", id ?? "");
    await eventually(() => (beta.run("test", "-e", `/proc/${pid}`).status === 0 ? undefined : true), {
      timeoutMs: WITHIN_MS,
      what: `the end of the stopped QEMU: ${list()}`,
    });
    await eventually(() => (/web +running/.test(ferry(alpha, "alpha", "guests").out) ? true : undefined), {
      timeoutMs: WITHIN_MS,
      what: "the guest to run at its source",
    });
    t.match(beta.property(guestUnitName("web"), "ActiveState"), /inactive|failed/);
  });

  await t.test("a killed destination agent ends no guest, and moves the guest on when it is back", async (t) => {
    requireMoved(hosts, "web", "alpha");
    const pid = pidOf(beta, "web");
    beta.must("systemctl", "kill", "--signal=SIGKILL", "ferry-destination");
    await eventually(() => (beta.run("systemctl", "is-active", "ferry-destination").status === 0 ? true : undefined), {
      timeoutMs: WITHIN_MS,
      what: "systemd to start the agent again",
    });
    t.equal(pidOf(beta, "web"), pid);
    requireMoved(hosts, "web", "beta");
    t.equal(pidOf(beta, "web"), 0);
  });
});
