/**
 * Compares how the devices of a guest are set and placed with how the destination's QEMU has set and placed its own. A
 * device that is set otherwise cannot load the state of the guest's device, or is another device to the guest: when two
 * disks have changed places, the guest writes to each what belongs on the other.
 */
import type { Refusal } from "../fault.ts";
import { isSameRelease } from "./devices.ts";
import type { QemuVersion } from "./messages.ts";

/** How one of the two QEMUs has set its devices. `theirs` is of the source, `mine` of the destination. */
interface Made {
  /** Each setting as "disk0: num-queues = 1". */
  readonly settings: readonly string[];
  readonly qemuVersion: QemuVersion;
}

/** A refusal names at most this many differences, and says how many more there are. */
const NAMED_MAX = 6;

/**
 * Matches the settings that a definition gives. Only these are compared where the two QEMUs are of different versions,
 * since each version has settings of its own, and where a guest has so many devices that not all of their settings fit
 * into a request.
 */
const IS_GIVEN =
  /: (bus|addr|channel|scsi-id|lun|unit|nr|at port|netdev|chardev|num-queues|queue-size|vectors|smp .*|memory .*|.*4g-mem-size|smm-.*) = /;

/**
 * The settings of a guest may have this many characters in all. For a guest with more, the source says only the
 * settings that a definition gives. A request has room for 256 KiB (shared/link/grpc/grpc-server.ts), and holds the
 * list of the devices as well.
 */
const SAID_CHARACTERS_MAX = 96 << 10;

/** Chooses the settings that a source says in its offer. @returns all of them, or those that a definition gives */
export function saidSettings(settings: readonly string[]): readonly string[] {
  const characters = settings.reduce((sum, one) => sum + one.length, 0);
  return characters <= SAID_CHARACTERS_MAX ? settings : settings.filter((one) => IS_GIVEN.test(one));
}

/**
 * Compares the settings of both QEMUs.
 * @returns a refusal that names the differences, NAMED_MAX of them at most; undefined where there is none
 */
export function compareSettings(theirs: Made, mine: Made): Refusal | undefined {
  const isOneRelease = isSameRelease(theirs.qemuVersion, mine.qemuVersion);
  const counts = (one: string): boolean => isOneRelease || IS_GIVEN.test(one);
  const given = gather(theirs.settings.filter(counts));
  const own = gather(mine.settings.filter(counts));
  const words: string[] = [];
  for (const [device, settings] of given) {
    const others = own.get(device);
    if (others !== undefined) words.push(...differences(device, settings, others));
    else if (isOneRelease) words.push(`${device} is only at the source`);
  }
  if (isOneRelease)
    words.push(
      ...[...own.keys()].filter((one) => !given.has(one)).map((device) => `${device} is only at the destination`),
    );
  if (words.length === 0) return undefined;
  const rest = words.length - NAMED_MAX;
  return {
    code: "devices",
    message: `The devices have other settings at the destination than at the source: ${words.slice(0, NAMED_MAX).join("; ")}${rest > 0 ? `; and ${rest} more` : ""}. The definition was edited since the guest was started: write into it, on both hosts, what the guest has`,
  };
}

type Settings = ReadonlyMap<string, readonly string[]>;

/** Takes "disk0: num-queues = 1" apart. @returns three empty texts for a text of another form */
function partsOf(setting: string): readonly [device: string, name: string, value: string] {
  const named = setting.indexOf(": ");
  const valued = named === -1 ? -1 : setting.indexOf(" = ", named + 2);
  if (valued === -1) return ["", "", ""];
  return [setting.slice(0, named), setting.slice(named + 2, valued), setting.slice(valued + 3)];
}

/**
 * Groups settings by device, then by name. Nothing tells devices of one name apart, so the values of such devices are
 * put into one list.
 */
function gather(settings: readonly string[]): ReadonlyMap<string, Settings> {
  const devices = new Map<string, Map<string, string[]>>();
  for (const one of settings) {
    const [device, name, value] = partsOf(one);
    const own = devices.get(device) ?? new Map<string, string[]>();
    devices.set(device, own);
    const values = own.get(name) ?? [];
    own.set(name, values);
    values.push(value);
  }
  for (const own of devices.values()) for (const values of own.values()) values.sort();
  return devices;
}

/**
 * Names the settings that differ. A setting that only one side has is no difference, since the other side may not have
 * said it.
 */
function differences(device: string, theirs: Settings, mine: Settings): readonly string[] {
  return [...theirs].flatMap(([name, values]) => {
    const [given, own] = [values.join(", "), mine.get(name)?.join(", ") ?? ""];
    return !mine.has(name) || given === own
      ? []
      : [`${name} of ${device} is ${given} at the source and ${own} at the destination`];
  });
}
