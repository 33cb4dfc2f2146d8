/**
 * Whether the devices of a guest are set, and placed, as those that the destination's QEMU has made. A device that is
 * set otherwise does not take the state of the guest's, or is another one to it: disks that have changed places are each
 * written for the other.
 */
import type { Refusal } from "../fault.ts";
import { isSameRelease } from "./devices.ts";
import type { QemuVersion } from "./messages.ts";

interface Made {
  /** Each as "disk0: num-queues = 1". */
  readonly settings: readonly string[];
  readonly qemuVersion: QemuVersion;
}

/** How many differences are named. */
const NAMED_MAX = 6;

/**
 * What a definition gives: all that is compared of QEMUs of two versions, each of which has settings of its own, and of
 * a guest with so many devices that a request would not hold all.
 */
const IS_GIVEN =
  /: (bus|addr|channel|scsi-id|lun|unit|nr|at port|netdev|chardev|num-queues|queue-size|vectors|smp .*|memory .*|.*4g-mem-size|smm-.*) = /;

/** A request has 256 KiB (shared/link/grpc-server.ts). */
const SAID_CHARACTERS_MAX = 96 << 10;

/** @returns what a source says of them */
export function saidSettings(settings: readonly string[]): readonly string[] {
  const characters = settings.reduce((sum, one) => sum + one.length, 0);
  return characters <= SAID_CHARACTERS_MAX ? settings : settings.filter((one) => IS_GIVEN.test(one));
}

/** @returns a refusal that names each difference; undefined where there is none */
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
    message: `The devices are set otherwise: ${words.slice(0, NAMED_MAX).join("; ")}${rest > 0 ? `; and ${rest} more` : ""}. The definition was edited since the guest was started: let it say on both hosts what the guest has`,
  };
}

type Settings = ReadonlyMap<string, readonly string[]>;

/** By device, then by setting; devices of one name are told apart by nothing, and their values are taken together. */
function gather(settings: readonly string[]): ReadonlyMap<string, Settings> {
  const devices = new Map<string, Map<string, string[]>>();
  for (const one of settings) {
    const [, device = "", name = "", value = ""] = /^(.*?): (.*?) = (.*)$/.exec(one) ?? [];
    const own = devices.get(device) ?? new Map<string, string[]>();
    own.set(name, [...(own.get(name) ?? []), value].sort());
    devices.set(device, own);
  }
  return devices;
}

/** Of a setting that only one of both has, the other one does not know, or did not say. */
function differences(device: string, theirs: Settings, mine: Settings): readonly string[] {
  return [...theirs].flatMap(([name, values]) => {
    const [given, own] = [values.join(", "), mine.get(name)?.join(", ") ?? ""];
    return !mine.has(name) || given === own
      ? []
      : [`${name} of ${device} is ${given} at the source and ${own} at the destination`];
  });
}
