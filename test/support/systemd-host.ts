/**
 * A host of its own whose process 1 is a real systemd, with the units of systemd/ installed (systemd-host.sh). It needs
 * root, and the programs of a Debian with systemd, dbus and polkit. Elsewhere the tests that need it are skipped.
 */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { eventually } from "./bounded.ts";
import { atTeardown } from "./teardown.ts";

const BOOTS_WITHIN_MS = 120_000;
const ANSWERS_WITHIN_MS = 120_000;
const NEEDED = ["/lib/systemd/systemd", "/usr/bin/unshare", "/usr/bin/nsenter", "/usr/lib/polkit-1/polkitd"];

/** Finds the directory of the machine's unified control groups. @returns undefined if there is none */
function controlGroups(): string | undefined {
  const mounts = readFileSync("/proc/self/mounts", "utf8").split("\n");
  return mounts.map((line) => line.split(" ")).find(([, , type]) => type === "cgroup2")?.[1];
}

/** Says why a test that needs such a host is skipped. @returns false if it is not */
export function noSystemdHost(): string | false {
  if (process.getuid?.() !== 0) return "only root can boot a systemd";
  const missing = NEEDED.find((path) => !existsSync(path));
  if (missing !== undefined) return `there is no ${missing}`;
  if (controlGroups() === undefined) return "there are no unified control groups";
  return false;
}

export interface Said {
  readonly status: number | null;
  readonly out: string;
  readonly error: string;
}

interface Booted {
  readonly group: string;
  readonly output: () => string;
  close(): Promise<void>;
}

let booted = 0;

export interface SystemdHostOptions {
  readonly name: string;
  /** A directory that all hosts of a test see as /srv/shared. @default one of its own */
  readonly shared?: string;
  /** Directories of the machine, each with the path at which the host has it. */
  readonly places?: Readonly<Record<string, string>>;
  /**
   * The words with which a command line begins, so that it runs in the host's network.
   * @default the machine's network
   */
  readonly network?: readonly string[];
}

export class SystemdHost {
  readonly name: string;
  /** The number that the machine has given to the host's process 1. */
  readonly pid: number;
  private readonly booted: Booted;

  static async boot(options: SystemdHostOptions): Promise<SystemdHost> {
    const { name, shared, places = {}, network = [] } = options;
    const folder = mkdtempSync(join(tmpdir(), "ferry-systemd-"));
    for (const part of ["layer", "root", "shared"]) mkdirSync(join(folder, part));
    if (shared !== undefined) {
      rmdirSync(join(folder, "shared"));
      execFileSync("/bin/ln", ["-s", shared, join(folder, "shared")]);
    }
    booted += 1;
    const group = `ferry-test-${process.pid}-${booted}-${name}`;
    const groupPath = join(controlGroups() ?? "", group);
    mkdirSync(groupPath);
    const script = join(packageRoot(), "test/support/systemd-host.sh");
    const namespaces = ["--mount", "--pid", "--cgroup", "--ipc", "--uts", "--fork", "--kill-child"];
    const binds = Object.entries(places).flat();
    const inner = [...network, "/usr/bin/unshare", ...namespaces, script, folder, packageRoot(), ...binds];
    const enter = `echo $$ >"$0/cgroup.procs"; exec "$@"`;
    const child = spawn("/bin/bash", ["-c", enter, groupPath, ...inner], { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => {
        output = (output + text).slice(-65_536);
      });
    const end = (): void => {
      child.kill("SIGKILL");
      removeGroups(groupPath);
      rmSync(folder, { recursive: true, force: true });
    };
    const forget = atTeardown(end);
    const close = async (): Promise<void> => {
      forget();
      child.kill("SIGKILL");
      // the namespaces end with their process 1, and then their groups are empty
      await eventually(() => (isEmpty(groupPath) ? true : undefined), {
        timeoutMs: 20_000,
        what: "the end of systemd",
      });
      end();
    };
    try {
      const bound = { timeoutMs: BOOTS_WITHIN_MS, what: "its process 1" };
      const pid = await eventually(() => childOf(child.pid ?? 0), bound);
      const host = new SystemdHost(name, pid, { group, close, output: () => output });
      await eventually(() => (host.run("systemctl", "is-active", "polkit", "dbus").status === 0 ? true : undefined), {
        timeoutMs: BOOTS_WITHIN_MS,
        what: `systemd to boot: ${output}`,
      });
      return host;
    } catch (thrown) {
      await close();
      throw thrown;
    }
  }

  private constructor(name: string, pid: number, booted: Booted) {
    this.name = name;
    this.pid = pid;
    this.booted = booted;
  }

  /** The name of the control group that has all processes of the host, from the machine's root group on. */
  get group(): string {
    return this.booted.group;
  }

  /** The words with which a command line begins, so that it runs as root of the host. */
  get prefix(): readonly string[] {
    return ["/usr/bin/nsenter", "-t", String(this.pid), "-m", "-p", "-C", "-i", "-u", "-n", "--root", "--wd=/"];
  }

  /** Ends everything in the host. */
  async close(): Promise<void> {
    await this.booted.close();
  }

  /** Runs a program as root of the host. */
  run(...command: readonly string[]): Said {
    const [program = "", ...rest] = [...this.prefix, ...command];
    const { status, stdout, stderr } = spawnSync(program, rest, {
      encoding: "utf8",
      timeout: ANSWERS_WITHIN_MS,
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
    });
    return { status, out: stdout, error: stderr };
  }

  /** Runs a program that must not fail. @returns what it has written */
  must(...command: readonly string[]): string {
    const { status, out, error } = this.run(...command);
    if (status !== 0) throw new Error(`${command.join(" ")} ended with ${status}: ${error}${out}\n${this.log()}`);
    return out.trim();
  }

  /** Runs a program as the agents' user. */
  asFerry(...command: readonly string[]): Said {
    return this.run("/usr/sbin/runuser", "-u", "ferry", "--", ...command);
  }

  /** Writes a file of the host. */
  write(path: string, text: string): void {
    writeFileSync(`/proc/${this.pid}/root${path}`, text);
  }

  /** Asks systemd for a property of a unit. */
  property(unit: string, name: string): string {
    return this.must("systemctl", "show", `--property=${name}`, "--value", unit);
  }

  /** The last lines of the host's journal and all of its console, for messages. */
  log(): string {
    return `${this.run("journalctl", "--no-pager", "-o", "cat", "-n", "60").out}${this.booted.output()}`;
  }
}

const childOf = (pid: number): number | undefined => {
  const text = spawnSync("/usr/bin/pgrep", ["-P", String(pid)], { encoding: "utf8" }).stdout.trim();
  return /^\d+$/.test(text) ? Number(text) : undefined;
};

const isEmpty = (group: string): boolean => /^populated 0$/m.test(readFileSync(join(group, "cgroup.events"), "utf8"));

/** Removes a control group and the groups below it, which must have no processes any more. */
function removeGroups(group: string): void {
  if (!existsSync(group)) return;
  for (const entry of readdirSync(group, { withFileTypes: true }))
    if (entry.isDirectory()) removeGroups(join(group, entry.name));
  try {
    rmdirSync(group);
  } catch {
    // a process of the group has not ended yet, so the group stays, which does no harm
  }
}
