/**
 * Compares the devices of a guest with those that the destination's QEMU has made from its definition. How the devices
 * are set and placed is compared in device-settings.ts.
 */
import type { Refusal } from "../fault.ts";
import type { QemuVersion } from "./messages.ts";

/** The devices that one of the two QEMUs has made. `theirs` is of the source, `mine` of the destination. */
interface Made {
  readonly devices: readonly string[];
  readonly qemuVersion: QemuVersion;
}

/** A refusal names at most this many devices of each side, and says how many more there are. */
const NAMED_MAX = 6;

/**
 * Matches the devices that a definition names. Only these are compared between two versions of QEMU, since each version
 * has inner objects of its own.
 */
const IS_NAMED = /^(PCI |peripheral\/[^/]+ \(|peripheral-anon\/[^/]+ \(|.*-cpu\)$)/;

/**
 * Matches a device behind a bridge, which only source agents of earlier versions name. Such a device is not compared,
 * since a QEMU that waits for its guest does not list it.
 */
const IS_BEHIND_BRIDGE = /^PCI [^ ]*\//;

/** Tells whether two QEMUs are of the same major and minor version. */
export const isSameRelease = (one: QemuVersion, other: QemuVersion): boolean =>
  one.major === other.major && one.minor === other.minor;

/** Compares the devices of both QEMUs. @returns a refusal that names the differences; undefined where there is none */
export function compareDevices(theirs: Made, mine: Made): Refusal | undefined {
  const counts = (one: string): boolean =>
    (isSameRelease(theirs.qemuVersion, mine.qemuVersion) || IS_NAMED.test(one)) && !IS_BEHIND_BRIDGE.test(one);
  const [given, own] = [theirs.devices, mine.devices].map((devices) => devices.filter(counts).map(unnumbered));
  const there = telling(without(given ?? [], own ?? []));
  const here = telling(without(own ?? [], given ?? []));
  if (there.length === 0 && here.length === 0) return undefined;
  const words = [
    ...(there.length === 0 ? [] : [`the guest has ${listed(there)}, which the destination's QEMU lacks`]),
    ...(here.length === 0 ? [] : [`the destination's QEMU has ${listed(here)}, which the guest lacks`]),
  ];
  return {
    code: "devices",
    message: `The devices differ: ${words.join("; ")}. They were plugged or unplugged since the guest was started, or its definition was edited: undo that, or write it into the definition of both hosts`,
  };
}

/** Gives the devices that the first list has more often than the second. */
function without(list: readonly string[], other: readonly string[]): readonly string[] {
  const left = new Map<string, number>();
  for (const one of other) left.set(one, (left.get(one) ?? 0) + 1);
  return list.filter((one) => {
    const count = left.get(one) ?? 0;
    left.set(one, count - 1);
    return count <= 0;
  });
}

/**
 * Removes the number of one of the machine's own devices. QEMU numbers these devices, so one more of them changes the
 * numbers of all that follow.
 */
const unnumbered = (device: string): string => device.replace(/^unattached\/device\[\d+\]/, "unattached");

/**
 * Chooses which of the differing devices are named: a device, but not its parts; and the place of a device on the PCI
 * bus only where nothing else differs.
 */
function telling(devices: readonly string[]): readonly string[] {
  const paths = devices.map((one) => one.replace(/ \([^()]*\)$/, ""));
  const known = new Set(paths);
  const outermost = devices.filter((_, at) => !isPart(paths[at] ?? "", known));
  const named = outermost.filter((one) => !one.startsWith("PCI "));
  return named.length > 0 ? named : outermost;
}

/** True when the device at this path is a part of a device at one of the known paths. */
function isPart(path: string, known: ReadonlySet<string>): boolean {
  for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1))
    if (known.has(path.slice(0, at))) return true;
  return false;
}

const listed = (devices: readonly string[]): string => {
  const named = devices
    .slice(0, NAMED_MAX)
    .map((one) => one.replace(/^unattached \((.*)\)$/, "$1").replace(/^(peripheral|peripheral-anon|unattached)\//, ""));
  const rest = devices.length - named.length;
  return `${named.join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`;
};
