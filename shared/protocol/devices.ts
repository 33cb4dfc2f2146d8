/** Whether the devices of a guest are those that the destination's QEMU has made from the definition. */
import type { Refusal } from "../fault.ts";
import type { QemuVersion } from "./messages.ts";

interface Made {
  readonly devices: readonly string[];
  readonly qemuVersion: QemuVersion;
}

/** How many differences are named. */
const NAMED_MAX = 6;

/** Of QEMUs of two versions only what a definition names is compared: each version has inner objects of its own. */
const IS_NAMED = /^(PCI |peripheral\/[^/]+ \(|peripheral-anon\/[^/]+ \(|.*-cpu\)$)/;

/**
 * A device behind a bridge, which only older sources name. It is not compared, since a QEMU that waits for its guest
 * does not list such devices.
 */
const IS_BEHIND_BRIDGE = /^PCI [^ ]*\//;

export const isSameRelease = (one: QemuVersion, other: QemuVersion): boolean =>
  one.major === other.major && one.minor === other.minor;

/** @returns a refusal that names each difference; undefined where there is none */
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

/** What the first list has more often than the second. */
function without(list: readonly string[], other: readonly string[]): readonly string[] {
  const left = new Map<string, number>();
  for (const one of other) left.set(one, (left.get(one) ?? 0) + 1);
  return list.filter((one) => {
    const count = left.get(one) ?? 0;
    left.set(one, count - 1);
    return count <= 0;
  });
}

/** The machine counts its own devices: one more of them gives all that follow other numbers. */
const unnumbered = (device: string): string => device.replace(/^unattached\/device\[\d+\]/, "unattached");

/** Of a device and its parts only the device is named, and its place on the bus only where that is all that differs. */
function telling(devices: readonly string[]): readonly string[] {
  const paths = devices.map((one) => one.replace(/ \([^()]*\)$/, ""));
  const outermost = devices.filter((_, at) => !paths.some((path) => paths[at]?.startsWith(`${path}/`)));
  const named = outermost.filter((one) => !one.startsWith("PCI "));
  return named.length > 0 ? named : outermost;
}

const listed = (devices: readonly string[]): string => {
  const named = devices
    .slice(0, NAMED_MAX)
    .map((one) => one.replace(/^unattached \((.*)\)$/, "$1").replace(/^(peripheral|peripheral-anon|unattached)\//, ""));
  const rest = devices.length - named.length;
  return `${named.join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`;
};
