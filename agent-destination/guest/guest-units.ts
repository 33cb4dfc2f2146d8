/**
 * Units of systemd for what must outlive the agent: each guest that arrives, and the program that keeps its monitor. In
 * the agent's own unit they would be reached by whatever is done to that unit: `systemctl kill`, systemd-oomd,
 * OOMPolicy=.
 *
 * In place of a command the agent spawns a shell script. The script moves its own process into a new unit and then
 * executes the command in place, so that the process stays the agent's child under the same number. Which unit depends
 * on the agent's user:
 *
 * - As root, a transient scope ferry-guest-NAME-ID.scope, as `systemd-run --scope` makes it. systemd-run itself cannot
 *   be used, because nothing could execute the command in place when it fails.
 * - As any other user, systemd/ferry-helper@.service, of which systemd/ferry-guests.rules lets the user `ferry` start
 *   instances. A permission to start transient units, even only those of one name, is a permission to run anything as
 *   root.
 *
 * A guest whose definition has its monitor in `{guest}` is started by systemd itself instead, as a user of its own
 * (unit-run.ts).
 */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { MigrationFault } from "../../shared/fault.ts";
import { commandFile, UNITS_RUNTIME_DIRECTORY } from "../../shared/guest-directory.ts";
import { guestUnitName, Systemctl } from "../../shared/qemu/inspect/guest-unit.ts";
import type { GuestDefinition } from "../../shared/runtime/guest/guest-definition.ts";
import { lacksSandbox, SANDBOX } from "../../shared/runtime/guest/qemu-options.ts";
import type { Logger } from "../../shared/runtime/log/log.ts";
import type { Command, OwnUnit } from "./command.ts";

/**
 * The setting `qemu.scope`. `auto`: units are used where systemd and its busctl are there, and a command that cannot
 * enter its unit is executed without it; `on`: a command is executed only in its unit; `off`: units are not used.
 */
type ScopeMode = "auto" | "on" | "off";

export interface GuestUnitsOptions {
  readonly mode: ScopeMode;
  readonly log: Logger;
  /** Whether the agent runs as root; for tests. @default whether this process is root */
  readonly isRoot?: boolean;
  /** Where systemctl and busctl are; for tests. @default /usr/bin */
  readonly programs?: string;
  /**
   * The directory that exists when systemd runs the host, as sd_booted(3) looks for it; for tests. @default
   * /run/systemd/system
   */
  readonly bootedBy?: string;
  /** The runtimeDirectory that ferry-guest@.service is written for; for tests. @default /run/ferry */
  readonly unitsRuntimeDirectory?: string;
}

/** The slice of all guests' units. */
const SLICE = "ferry-guests.slice";
/** The beginning of the names of scopes. */
const SCOPE_PREFIX = "ferry-guest";
/** The beginning of the names of instances of systemd/ferry-helper@.service. */
const HELPER_PREFIX = "ferry-helper";

/** Matches a unit of any of the three kinds in /proc/PID/cgroup. */
const UNIT = /\/ferry-(guest|helper)[-@]/;

/**
 * The shell function of an agent that runs as root: it makes the scope and enters it. systemd moves the process into
 * the scope some time after it has answered, hence the loop, of at most 2 s.
 */
const ENTER_SCOPE = `
enter() {
  "$bin/busctl" --quiet call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \\
    StartTransientUnit 'ssa(sv)a(sa(sv))' "$unit" fail \\
    3 PIDs au 1 $$ Slice s ${SLICE} CollectMode s inactive-or-failed 0 || return 1
  tries=0
  while [ $tries -lt 200 ]; do
    while read -r line; do case $line in *"/$unit") return 0;; esac; done </proc/$$/cgroup
    tries=$((tries + 1))
    /bin/sleep 0.01
  done
  echo "systemd did not move process $$ into $unit"
  return 1
}`;
/** The shell function of an agent that runs as any other user: it starts the instance and enters it. */
const ENTER_SERVICE = `
enter() {
  "$bin/systemctl" --quiet --no-ask-password start "$unit" &&
  "$bin/busctl" --quiet call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \\
    AttachProcessesToUnit ssau "$unit" "" 1 $$
}`;
/**
 * Calls one of the two functions, and then executes the command. $1: "fallback" executes the command in any case,
 * "strict" only in its unit. $2: the unit. $3: the directory of systemctl and busctl. The output of both programs goes
 * into NAME.qemu.log, as the command's output does.
 */
const EXECUTE = `
mode=$1 unit=$2 bin=$3
shift 3
enter >&2 </dev/null || [ "$mode" = fallback ] || exit 1
exec "$@"`;

/** Gives the command that starts `command` in a unit of its own, or `command` itself where guests have no units. */
export const inOwnUnit = (command: Command, name: string): Command =>
  GuestUnits.current?.command(command, name) ?? command;

/** Decides in which unit a command is started. */
export class GuestUnits {
  /**
   * The units of this agent, set by its program before it takes guests. While undefined, every command is started
   * without a unit.
   */
  static current: GuestUnits | undefined;
  private readonly options: GuestUnitsOptions;
  private readonly isUsed: boolean;
  private readonly systemctl: Systemctl;
  private readonly isBooted: boolean;
  /** The guests for which ownUnit() has logged how they are started. */
  private readonly told = new Set<string>();
  /** True once check() has logged that a process is not in a unit of its own. */
  private wasTold = false;

  constructor(options: GuestUnitsOptions) {
    const { mode, bootedBy = "/run/systemd/system", programs = "/usr/bin" } = options;
    this.options = options;
    this.isBooted = existsSync(bootedBy);
    const isThere = this.isBooted && existsSync(`${programs}/busctl`);
    this.isUsed = mode === "on" || (mode === "auto" && isThere);
    this.systemctl = new Systemctl(programs);
  }

  /**
   * Gives the command that is to be spawned in place of `command`.
   * @param name of the guest, or of what belongs to it: letters, digits and "._-", of which unit names may be made
   */
  command(command: Command, name: string): Command {
    if (!this.isUsed) return command;
    const { mode, isRoot = process.getuid?.() === 0, programs = "/usr/bin" } = this.options;
    const which = `${name}-${randomBytes(4).toString("hex")}`;
    const unit = isRoot ? `${SCOPE_PREFIX}-${which}.scope` : `${HELPER_PREFIX}@${which}.service`;
    const script = (isRoot ? ENTER_SCOPE : ENTER_SERVICE) + EXECUTE;
    return ["/bin/sh", "-c", script, "sh", mode === "on" ? "strict" : "fallback", unit, programs, ...command];
  }

  /**
   * Finds the unit in which systemd starts a guest as a user of its own. For each guest it is logged once what the
   * guest could reach if it broke out of its QEMU.
   * @returns undefined for a guest whose QEMU this agent has to start itself, as its own user
   * @throws MigrationFault `qemu-start` where qemu.scope is `on`, the definition has the monitor in `{guest}`, and
   *   systemd cannot start the guest
   */
  async ownUnit(definition: GuestDefinition, runtimeDirectory: string): Promise<OwnUnit | undefined> {
    const { name, command } = definition;
    const unit = guestUnitName(name);
    const why = await this.whyNotOwn(definition, runtimeDirectory, unit);
    if (!this.told.has(name)) {
      this.told.add(name);
      const { log } = this.options;
      if (why !== undefined)
        log.warn(
          { guest: name, why, advice: `docs/operations.md, "Guests with users of their own"` },
          "the guest's QEMU runs as this agent's user: a guest that breaks out of it reaches what the agent reaches",
        );
      if (lacksSandbox(command))
        log.warn(
          { guest: name, advice: `Add "-sandbox", "${SANDBOX}" to the definition on both hosts` },
          "the guest's QEMU may start programs and change its rights: its definition has no -sandbox on",
        );
    }
    if (why === undefined) return { unit, commandPath: commandFile(name, runtimeDirectory), systemctl: this.systemctl };
    if (this.options.mode !== "on" || definition.directory === runtimeDirectory) return undefined;
    throw new MigrationFault("qemu-start", `${name} cannot be started as a user of its own: ${why}`, {
      advice: "Install the units of systemd/, or set qemu.scope to auto",
    });
  }

  /**
   * Tells why systemd cannot start the guest as a user of its own.
   * @returns undefined where it can
   */
  private async whyNotOwn(
    { directory }: GuestDefinition,
    runtimeDirectory: string,
    unit: string,
  ): Promise<string | undefined> {
    const { mode, unitsRuntimeDirectory = UNITS_RUNTIME_DIRECTORY } = this.options;
    if (directory === runtimeDirectory) return "its definition has the monitor elsewhere than in {guest}";
    if (mode === "off") return "qemu.scope is off";
    if (!this.isBooted) return "systemd does not run this host";
    if (runtimeDirectory !== unitsRuntimeDirectory)
      return `ferry-guest@.service is for runtimeDirectory ${unitsRuntimeDirectory}, not ${runtimeDirectory}`;
    const state = await this.systemctl.show(unit);
    if (state?.load === "loaded") return undefined;
    return state === undefined ? "systemd does not answer" : `systemd says of ${unit}: ${state.load}`;
  }

  /**
   * Checks whether a process that was started by the result of command() is in a unit of its own. If it is not, this is
   * logged, but only the first time.
   */
  async check(pid: number, name: string): Promise<void> {
    if (!this.isUsed || this.wasTold) return;
    const groups = await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => undefined);
    // a process that has ended meanwhile tells nothing about the next one
    if (groups === undefined || UNIT.test(groups) || this.wasTold) return;
    this.wasTold = true;
    this.options.log.warn(
      {
        guest: name,
        advice: `NAME.qemu.log has the reason; docs/operations.md, "Guests under supervisors", what is needed`,
      },
      "guests are started in the agent's own unit: stopping or killing that unit hits the guests too",
    );
  }
}
