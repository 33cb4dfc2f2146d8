/**
 * The two hosts of a rig as hosts whose process 1 is systemd, with the units of systemd/ as they are: the agents run in
 * ferry-source.service and ferry-destination.service, guests in ferry-guest@NAME.service as users of their own. Only
 * what belongs to the tests is in drop-ins: where the agents write, that systemd does not start them again by itself,
 * and what a guest may write for the tests.
 */
import { chmodSync, mkdirSync } from "node:fs";
import { guestUnitName } from "../../shared/qemu/inspect/guest-unit.ts";
import { SANDBOX } from "../../shared/runtime/guest/qemu-options.ts";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import type { GuestDefinitionFile } from "./guest.ts";
import type { RigHost } from "./rig.ts";
import { controlGroupOf, findProcesses } from "./running-processes.ts";
import { SystemdHost } from "./systemd-host.ts";

/** As systemd-host.sh has it. */
const CHECKOUT = "/opt/ferry";
const SHARED = "/srv/shared";
const SERIAL = "/srv/serial";
const OUTPUT = "/run/ferry-test";
const AGENTS = ["source", "destination"] as const;
type AgentKind = (typeof AGENTS)[number];

/**
 * Of an agent's unit. A test starts its agents itself, more often than systemd would, and has a second one of a kind
 * beside the first.
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

/** A command that has a unit started and ends with it, and how the unit's process is found. */
export interface UnitStart {
  readonly command: readonly string[];
  find(): number | undefined;
}

/** The definition of a guest for such hosts: with a user of its own, and what systemd permits that user. */
export function inGuestUnit({ name, qmp, command }: GuestDefinitionFile): GuestDefinitionFile {
  const own = (word: string): string =>
    word
      .replaceAll("file:{runtime}", `file:${SERIAL}`)
      .replaceAll("{runtime}", "{guest}")
      .replaceAll(packageRoot(), CHECKOUT);
  return { name, qmp: own(qmp), command: [...command.map(own), "-sandbox", SANDBOX] };
}

/** A host of a rig that systemd runs. */
export class UnitsHost {
  readonly systemd: SystemdHost;
  /** Directories of the machine, and what the host calls them. The longest come first. */
  readonly #places: readonly (readonly [machine: string, here: string])[];

  /** @param shared a directory that both hosts see */
  static async boot(host: RigHost, shared: string): Promise<UnitsHost> {
    // the tests write there as root, and a guest as its user
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
    // post-copy of guests with users of their own needs it; where the kernel has none, those migrations are refused
    systemd.run("chmod", "0666", "/dev/userfaultfd");
  }

  /** The same words as the host knows their paths. */
  seenHere(words: readonly string[]): readonly string[] {
    return words.map((word) => this.#places.reduce((text, [machine, here]) => text.replaceAll(machine, here), word));
  }

  /** What a command line begins with to run on the host, and to end with whoever has started it. */
  get prefix(): readonly string[] {
    return [...this.systemd.prefix, "--", "/usr/bin/setpriv", "--pdeathsig=KILL", "--"];
  }

  /** `{guest}`, as the machine sees it: the file system that the unit of a guest has made there last. */
  guestDirectory(name: string): string {
    return `/proc/${this.systemd.pid}/root/run/ferry-guests/${name}`;
  }

  /**
   * An agent's unit with these flags in place of those of before, beside what the unit says itself.
   * @returns what starts it, and finds its process
   */
  prepareAgent(kind: AgentKind, flags: readonly string[]): UnitStart {
    const isAgent = new RegExp(`^\\S*node .*/ferry-${kind}( |$)`);
    const runs = (unit: string): number | undefined => this.#processOf(`${unit}.service`, isAgent);
    const unit = runs(`ferry-${kind}`) === undefined ? `ferry-${kind}` : `ferry-${kind}-second`;
    this.systemd.write(`/etc/ferry/${kind}.env`, `FLAGS=${this.seenHere(flags).join(" ")}\n`);
    const command = [`${CHECKOUT}/test/support/run-unit.sh`, unit, `${OUTPUT}/${unit}`];
    return { command, find: () => runs(unit) };
  }

  /** As an administrator of the host starts a guest by its unit. */
  prepareGuest({ name, command }: GuestDefinitionFile, extra: readonly string[]): UnitStart {
    const words = this.seenHere([...command, ...extra]).map((word) =>
      quoted(word.replaceAll("{guest}", `/run/ferry-guests/${name}`)),
    );
    this.systemd.write(`/run/ferry-commands/${name}`, `exec ${words.join(" ")}\n`);
    const unit = guestUnitName(name);
    return { command: ["systemctl", "start", "--wait", unit], find: () => this.#processOf(unit, /^\S*qemu-system-/) };
  }

  /** Is a process of the machine one of this host? */
  has(pid: number): boolean {
    return controlGroupOf(pid).includes(`/${this.systemd.group}/`);
  }

  #processOf(unit: string, command: RegExp): number | undefined {
    const isOfUnit = (pid: number): boolean => this.has(pid) && controlGroupOf(pid).endsWith(`/${unit}`);
    return findProcesses(({ pid }) => isOfUnit(pid)).find((found) => command.test(found.command))?.pid;
  }
}

/** A word of the shell that stands for this very text. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;
