/**
 * Finds the devices that a QEMU has now. They may differ from those of its definition, since somebody may have plugged
 * or unplugged one. The human monitor gives the whole object tree in one answer (qom-hmp-cmds.c, hmp_info_qom_tree).
 */

import { linesOf } from "../qmp/monitor-text.ts";
import type { QmpClient } from "../qmp/qmp-client.ts";
import type { PciDevice } from "../qmp/qmp-types.ts";
import { NamedDevices, parseDeviceTree } from "./device-tree.ts";

/** Types of objects that come and go with what the guest does, or that have no device state. */
const PASSING: readonly string[] = ["memory-region", "irq", "container"];

export interface FoundDevices {
  /** Each device by its path and type, and each PCI device by its place. */
  readonly devices: readonly string[];
  /** How these devices and the machine are set (device-tree.ts): each setting in the form "disk0: num-queues = 1". */
  readonly settings: readonly string[];
}

/**
 * Asks for the devices with their settings (`info qtree`). The answer is a text for people; device-tree.ts parses it.
 */
export const readTree = (qmp: QmpClient): Promise<string> =>
  qmp.execute("human-monitor-command", { "command-line": "info qtree" });

/** Finds the devices and how they are set. @param tree the answer of readTree(), where it was asked for already */
export async function readDevices(qmp: QmpClient, tree = readTree(qmp)): Promise<FoundDevices> {
  const [objects, properties, buses, machine] = await Promise.all([
    qmp.execute("human-monitor-command", { "command-line": "info qom-tree" }),
    tree,
    // a machine without PCI has no such command
    qmp.execute("query-pci").catch(() => []),
    machineSettings(qmp),
  ]);
  const made = parseTree(objects);
  const plugged = new Set(made.map((one) => /^peripheral-anon\/[^/]+ \((.*)\)$/.exec(one)?.[1] ?? ""));
  return {
    devices: [...made, ...buses.flatMap(({ devices }) => devices.map(placeOf))],
    settings: [...parseDeviceTree(properties, plugged).settings, ...machine],
  };
}

/**
 * Reads the part of -smp and -m that no device shows: how the processors are arranged, and how much memory may be
 * plugged.
 */
async function machineSettings(qmp: QmpClient): Promise<readonly string[]> {
  const [smp, memory] = await Promise.all(
    ["smp", "memory"].map((property) => qmp.execute("qom-get", { path: "/machine", property }).catch(() => undefined)),
  );
  return [
    ...fieldsOf("smp", smp),
    ...fieldsOf("memory", memory).filter((one) => !one.startsWith("machine: memory size ")),
  ];
}

const fieldsOf = (option: string, value: unknown): readonly string[] =>
  typeof value === "object" && value !== null
    ? Object.entries(value).flatMap(([name, one]) =>
        ["string", "number", "boolean"].includes(typeof one) ? [`machine: ${option} ${name} = ${one}`] : [],
      )
    : [];

/** True for a device that somebody may plug or unplug. */
export const isPlugged = (device: string): boolean => /^peripheral(-anon)?\/[^/]+ \(/.test(device);

/**
 * Finds the devices for which isPlugged() is true. Only two short answers are asked for, since the guest stands still
 * meanwhile.
 */
export async function readPlugged(qmp: QmpClient): Promise<readonly string[]> {
  const places = ["peripheral", "peripheral-anon"];
  const lists = await Promise.all(places.map((place) => qmp.execute("qom-list", { path: `/machine/${place}` })));
  return lists.flatMap((list, at) =>
    list.flatMap(({ name, type }) => {
      const [, kind] = /^child<(.*)>$/.exec(type) ?? [];
      return kind === undefined ? [] : [`${places[at]}/${name} (${kind})`];
    }),
  );
}

/** Parses the answer to `info qom-tree`. @throws MigrationFault `qmp-protocol` when it names too many devices */
function parseTree(text: string): readonly string[] {
  const devices: string[] = [];
  const path: string[] = [];
  const named = new NamedDevices();
  for (const line of linesOf(text)) {
    const row = /^( *)\/(.*) \(([^()]+)\)$/.exec(line);
    if (row === null) continue;
    const [, indent = "", name = "", type = ""] = row;
    path.length = indent.length >> 1;
    path.push(name);
    // the machine itself is left out, because its type is compared by its name
    if (path.length > 1 && !PASSING.includes(type)) devices.push(named.count(`${path.slice(1).join("/")} (${type})`));
  }
  return devices;
}

/**
 * Names a PCI device of the root bus by its place. Devices behind a bridge are left out: QEMU lists them only when
 * firmware has numbered the bridge's bus, which has not happened in a QEMU that still waits for its guest.
 */
const placeOf = ({ slot, function: part, id }: PciDevice): string =>
  `PCI ${slot.toString(16).padStart(2, "0")}.${part} (${id.vendor.toString(16)}:${id.device.toString(16)})`;
