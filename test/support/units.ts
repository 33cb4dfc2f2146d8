/**
 * Makes the two hosts of a rig into hosts whose process 1 is systemd, with the units of systemd/ as they are. The
 * agents run in ferry-source.service and ferry-destination.service, and guests in ferry-guest@NAME.service as users of
 * their own. Drop-ins have only what belongs to the tests: where the agents write their output, that systemd does not
 * start them again by itself, and where a guest may write for the tests.
 */
import { chmodSync, mkdirSync } from "node:fs";
import { guestUnitName } from "../../shared/qemu/inspect/guest-unit.ts";
import { SANDBOX } from "../../shared/runtime/guest/qemu-options.ts";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import type { GuestDefinitionFile } from "./guest.ts";
import type { RigHost } from "./rig.ts";
import { controlGroupOf, findProcesses } from "./running-processes.ts";
import { SystemdHost } from "./systemd-host.ts";

/** The place of the checkout on such a host, as systemd-host.sh has it. */
const CHECKOUT = "/opt/ferry";
const SHARED = "/srv/shared";
const SERIAL = "/srv/serial";
const OUTPUT = "/run/ferry-test";
const AGENTS = ["source", "destination"] as const;
type AgentKind = (typeof AGENTS)[number];

/**
 * The drop-in of an agent's unit. A test starts its agents itself, more often than systemd would. It may start a second
 * agent of a kind beside the first, whose unit has the suffix -second.
 */
const agentDropIn = (unit: string): string => `[Unit]
StartLimitIntervalSec=0
[Service]
Restart=no
StandardOutput=file:${OUTPUT}/${unit}
StandardError=inherit
Environment=FLAGS=
ExecStart=
ExecStart=/usr/local/bin/${unit.replace("-second", "")} $FLAGS
`;

const GUEST_DROP_IN = `[Service]
ReadWritePaths=${SERIAL} ${SHARED}
DeviceAllow=/dev/userfaultfd rw
`;

/**
 * A command that has systemd start a unit and ends when the unit ends, and a function that finds the unit's process.
 */
export interface UnitStart {
  readonly command: readonly string[];
  find(): number | undefined;
}

/**
 * Changes a guest's definition for such hosts, so that the guest has a user of its own and does only what that user
 * may.
 */
export function inGuestUnit({ name, qmp, command }: GuestDefinitionFile): GuestDefinitionFile {
  const own = (word: string): string =>
    word
      .replaceAll("file:{runtime}", `file:${SERIAL}`)
      .replaceAll("{runtime}", "{guest}")
      .replaceAll(packageRoot(), CHECKOUT);
  return { name, qmp: own(qmp), command: [...command.map(own), "-sandbox", SANDBOX] };
}

/** A host of a rig whose process 1 is systemd. */
export class UnitsHost {
  readonly systemd: SystemdHost;
  /** Directories of the machine, each with its path on the host. The longest come first. */
  readonly #places: readonly (readonly [machine: string, here: string])[];

  /** Boots a host. @param shared a directory that both hosts see */
  static async boot(host: RigHost, shared: string): Promise<UnitsHost> {
    // the tests write there as root, and a guest writes there as its user
    for (const folder of [shared, host.serialDirectory]) {
      mkdirSync(folder, { recursive: true });
      chmodSync(folder, 0o777);
    }
    const places = {
      [host.runtimeDirectory]: "/run/ferry",
      [host.stateDirectory]: "/var/lib/ferry",
      [host.guestsDirectory]: "/etc/ferry/guests",
      [host.serialDirectory]: SERIAL,
    };
    const systemd = await SystemdHost.boot({ name: host.name, shared, places, network: host.prefix });
    const booted = new UnitsHost(systemd, { ...places, [shared]: SHARED, [packageRoot()]: CHECKOUT });
    try {
      booted.#install();
    } catch (thrown) {
      await systemd.close();
      throw thrown;
    }
    return booted;
  }

  private constructor(systemd: SystemdHost, places: Readonly<Record<string, string>>) {
    this.systemd = systemd;
    this.#places = Object.entries(places).sort(([one], [other]) => other.length - one.length);
  }

  #install(): void {
    const { systemd } = this;
    const units = "/etc/systemd/system";
    for (const kind of AGENTS) {
      systemd.must("cp", `${units}/ferry-${kind}.service`, `${units}/ferry-${kind}-second.service`);
      for (const unit of [`ferry-${kind}`, `ferry-${kind}-second`]) {
        systemd.must("mkdir", "-p", `${units}/${unit}.service.d`);
        systemd.write(`${units}/${unit}.service.d/test.conf`, agentDropIn(unit));
      }
    }
    systemd.must("mkdir", "-p", `${units}/ferry-guest@.service.d`);
    systemd.write(`${units}/ferry-guest@.service.d/test.conf`, GUEST_DROP_IN);
    systemd.must("systemctl", "daemon-reload");
    // post-copy of guests with users of their own needs this device, and is refused where the kernel has none
    systemd.run("chmod", "0666", "/dev/userfaultfd");
  }

  /** Replaces the machine's paths in these words by the host's. */
  seenHere(words: readonly string[]): readonly string[] {
    return words.map((word) => this.#places.reduce((text, [machine, here]) => text.replaceAll(machine, here), word));
  }

  /** The words with which a command line begins, so that it runs on the host and is killed when this program ends. */
  get prefix(): readonly string[] {
    return [...this.systemd.prefix, "--", "/usr/bin/setpriv", "--pdeathsig=KILL", "--"];
  }

  /** The machine's path to `{guest}`, the file system that the unit of a guest has last made on the host. */
  guestDirectory(name: string): string {
    return `/proc/${this.systemd.pid}/root/run/ferry-guests/${name}`;
  }

  /**
   * Gives an agent's unit these flags, in place of those that it had before.
   * @returns what starts the unit and finds its process
   */
  prepareAgent(kind: AgentKind, flags: readonly string[]): UnitStart {
    const isAgent = new RegExp(`^\\S*node .*/ferry-${kind}( |$)`);
    const runs = (unit: string): number | undefined => this.#processOf(`${unit}.service`, isAgent);
    const unit = runs(`ferry-${kind}`) === undefined ? `ferry-${kind}` : `ferry-${kind}-second`;
    this.systemd.write(`/etc/ferry/${kind}.env`, `FLAGS=${this.seenHere(flags).join(" ")}\n`);
    const command = [`${CHECKOUT}/test/support/run-unit.sh`, unit, `${OUTPUT}/${unit}`];
    return { command, find: () => runs(unit) };
  }

  /** Prepares to start a guest by its unit, as an administrator of the host does. */
  prepareGuest({ name, command }: GuestDefinitionFile, extra: readonly string[]): UnitStart {
    const words = this.seenHere([...command, ...extra]).map((word) =>
      quoted(word.replaceAll("{guest}", `/run/ferry-guests/${name}`)),
    );
    this.systemd.write(`/run/ferry-commands/${name}`, `exec ${words.join(" ")}\n`);
    const unit = guestUnitName(name);
    return { command: ["systemctl", "start", "--wait", unit], find: () => this.#processOf(unit, /^\S*qemu-system-/) };
  }

  /** True if a process of the machine is one of this host. */
  has(pid: number): boolean {
    return controlGroupOf(pid).includes(`/${this.systemd.group}/`);
  }

  #processOf(unit: string, command: RegExp): number | undefined {
    const isOfUnit = (pid: number): boolean => this.has(pid) && controlGroupOf(pid).endsWith(`/${unit}`);
    return findProcesses(({ pid }) => isOfUnit(pid)).find((found) => command.test(found.command))?.pid;
  }
}

/** Quotes a text, so that the shell takes it as one word. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;
