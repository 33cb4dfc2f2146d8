/**
 * Parses how a QEMU's devices are set, and on which bus and at which address each device is. By now this may differ
 * from what the definition says. The human monitor gives all of it in one answer (system/qdev-monitor.c,
 * hmp_info_qtree).
 *
 * If the settings or the place of a device differ between the two QEMUs, the device of the destination loads the state
 * of a wrong device, or none (docs/decisions/0046).
 */

import { MigrationFault } from "../../fault.ts";
import { linesOf } from "../qmp/monitor-text.ts";

export interface DeviceTree {
  /** Each setting in the form "disk0: num-queues = 1". */
  readonly settings: readonly string[];
  /**
   * The label of the device that has each drive. The key is the name by which the device knows the drive, or the name
   * of the drive's block node.
   */
  readonly places: ReadonlyMap<string, string>;
}

interface Device {
  readonly indent: number;
  readonly type: string;
  /** Empty where the definition gives none. */
  readonly id: string;
  /** The device that has the bus on which this device is. */
  readonly parent: Device | undefined;
  readonly bus: string;
  readonly properties: [name: string, value: string][];
}

/** Properties that tell devices of one bus apart when they have no id. */
const PLACES: readonly string[] = ["addr", "channel", "scsi-id", "lun", "unit", "nr", "cad", "at port"];

/**
 * Properties that are not compared: those that the guest sets (the numbers of buses, a network card's address), those
 * that QEMU guesses from the content of a disk (its geometry), and the drive, whose files are compared instead.
 */
const PASSING: readonly string[] = ["busnr", "mac", "cyls", "heads", "secs", "lcyls", "lheads", "lsecs", "drive"];

/**
 * The properties of the machine's own devices that are compared: they say where the memory is. Firmware sets many of
 * the others.
 */
const IS_OF_MACHINE = /4g-mem-size$|^smm-/;

/**
 * The most characters that all devices and settings of a QEMU may have together. Those of a machine with 100 plugged
 * devices have some 200 000.
 */
const CHARACTERS_MAX = 4 << 20;

/** Bounds the characters that a QEMU uses to name its devices and settings, since no QEMU is trusted. */
export class NamedDevices {
  private characters = 0;

  /**
   * Counts the characters of a name or a setting.
   * @returns the text as it was given
   * @throws MigrationFault `qmp-protocol` when QEMU names more than any guest has
   */
  count(text: string): string {
    this.characters += text.length;
    if (this.characters > CHARACTERS_MAX)
      throw new MigrationFault("qmp-protocol", "QEMU names more devices and settings than any guest has");
    return text;
  }
}

/**
 * Reads the answer to `info qtree`. The time that this takes grows linearly with the length of the answer.
 * @param plugged types of the devices that a definition gives without an id
 * @throws MigrationFault `qmp-protocol` when QEMU names more devices than any guest has
 */
export function parseDeviceTree(text: string, plugged: ReadonlySet<string>): DeviceTree {
  const devices = parse(text);
  const named = new NamedDevices();
  const labels = new Map<Device, string>();
  // in the list a device comes after the device that has its bus
  for (const device of devices) labels.set(device, named.count(labelOf(device, labels)));
  const settings = devices.flatMap((device) => {
    const label = labels.get(device) ?? "";
    const counts = isGiven(device, plugged)
      ? ([name, value]: readonly [string, string]) => !PASSING.includes(name) && !isOfHost(name, value)
      : ([name]: readonly [string, string]) => IS_OF_MACHINE.test(name);
    return [["bus", device.bus] as const, ...device.properties]
      .filter(counts)
      .map(([name, value]) => named.count(`${label}: ${name} = ${value}`));
  });
  return { settings, places: new Map(devices.flatMap((device) => placeOf(device, labels))) };
}

function parse(text: string): readonly Device[] {
  const devices: Device[] = [];
  const above: Device[] = [];
  const buses = new Map<number, string>();
  for (const line of linesOf(text)) {
    const indent = line.search(/\S/);
    const begun = deviceIn(line.slice(indent));
    if (begun !== undefined) {
      while ((above.at(-1)?.indent ?? -1) >= indent) above.pop();
      // a device is indented by two more than its bus
      const device = { indent, ...begun, parent: above.at(-1), bus: buses.get(indent - 2) ?? "", properties: [] };
      devices.push(device);
      above.push(device);
    } else {
      const bus = takeLine(line, above.at(-1));
      if (bus !== undefined) buses.set(indent, bus);
    }
  }
  return devices;
}

/** Reads a line of the form `dev: TYPE, id "ID"`. */
function deviceIn(line: string): Pick<Device, "type" | "id"> | undefined {
  const [begin, middle] = ["dev: ", ', id "'];
  const at = line.lastIndexOf(middle, line.length - middle.length - 1);
  if (!line.startsWith(begin) || !line.endsWith('"') || at <= begin.length) return undefined;
  return { type: line.slice(begin.length, at), id: line.slice(at + middle.length, -1) };
}

/**
 * Reads a line that begins no device. If the line has a property, it is added to the properties of `device`.
 * @returns the name of the bus that begins with this line; undefined where none does
 */
function takeLine(line: string, device: Device | undefined): string | undefined {
  const [, name, value = ""] = /^ *([\w-]+) = (.*)$/.exec(line) ?? [];
  if (name !== undefined) device?.properties.push([name, value]);
  // the property `port` has the port of a USB device only where the definition gives it; this line always has it
  const port = /^ *addr [\d.]+, port ([\d.]+),/.exec(line)?.[1];
  if (port !== undefined) device?.properties.push(["at port", port]);
  return /^ *bus: (.*)$/.exec(line)?.[1];
}

/**
 * True for a setting that is not compared: a path of the host, or the property `port` of a USB device. QEMU shows this
 * property as empty where the definition leaves the port to QEMU, so "at port" is compared in its place.
 */
const isOfHost = (name: string, value: string): boolean =>
  value.startsWith('"/') || (name === "port" && value.startsWith('"'));

/** True when the definition gives this device, or the device that it is a part of. */
const isGiven = ({ id, type, parent }: Device, plugged: ReadonlySet<string>): boolean =>
  id !== "" || plugged.has(type) || (parent !== undefined && isGiven(parent, plugged));

/**
 * Makes a name for a device that does not depend on the order in which the devices were made.
 * @param labels the names of the devices before it
 */
function labelOf({ type, id, parent, properties }: Device, labels: ReadonlyMap<Device, string>): string {
  if (id !== "") return id;
  const place = properties.filter(([name]) => PLACES.includes(name)).map(([, value]) => withoutRemark(value));
  const own = [type, ...place].join(" ");
  return parent === undefined ? own : `${labels.get(parent)}/${own}`;
}

/** Removes what QEMU says in parentheses behind a value. */
const withoutRemark = (value: string): string =>
  value.endsWith(")") && value.includes(" (") ? value.slice(0, value.indexOf(" (")) : value;

function placeOf(device: Device, labels: ReadonlyMap<Device, string>): [drive: string, place: string][] {
  const drive = device.properties.find(([name]) => name === "drive")?.[1].replace(/^"(.*)"$/, "$1") ?? "";
  return drive === "" ? [] : [[drive, labels.get(device) ?? ""]];
}
