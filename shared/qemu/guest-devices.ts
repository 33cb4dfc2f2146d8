/**
 * The devices that a QEMU has made, which need not be those of its definition: somebody may have plugged one in or out.
 * The human monitor gives the whole object tree in one answer (qom-hmp-cmds.c, hmp_info_qom_tree).
 */
import { parseDeviceTree } from "./device-tree.ts";
import type { QmpClient } from "./qmp-client.ts";
import type { PciDevice } from "./qmp-types.ts";

/** Objects that come and go with what the guest does, or that no device state is of. */
const PASSING: readonly string[] = ["memory-region", "irq", "container"];

export interface FoundDevices {
  /** Each device as its path and type, and each PCI device by its place. */
  readonly devices: readonly string[];
  /** How they and the machine are set (device-tree.ts). */
  readonly settings: readonly string[];
}

export async function readDevices(qmp: QmpClient): Promise<FoundDevices> {
  const [tree, properties, buses, machine] = await Promise.all([
    qmp.execute("human-monitor-command", { "command-line": "info qom-tree" }),
    qmp.execute("human-monitor-command", { "command-line": "info qtree" }),
    // a machine without PCI has no such command
    qmp.execute("query-pci").catch(() => []),
    machineSettings(qmp),
  ]);
  const made = parseTree(tree);
  const plugged = new Set(made.map((one) => /^peripheral-anon\/[^/]+ \((.*)\)$/.exec(one)?.[1] ?? ""));
  return {
    devices: [...made, ...buses.flatMap(({ devices }) => devices.map(placeOf))],
    settings: [...parseDeviceTree(properties, plugged).settings, ...machine],
  };
}

/** What of -smp and -m the devices do not show: how the processors are arranged, and the room for memory to be plugged. */
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
    ? Object.entries(value).map(([name, one]) => `machine: ${option} ${name} = ${one}`)
    : [];

/** Of the devices that somebody may plug or unplug. */
export const isPlugged = (device: string): boolean => /^peripheral(-anon)?\/[^/]+ \(/.test(device);

/** Those of isPlugged(), as they are now: two short answers, for a guest that stands still. */
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

/** Exported for its tests. */
export function parseTree(text: string): readonly string[] {
  const devices: string[] = [];
  const path: string[] = [];
  for (const line of text.split("\n")) {
    const row = /^( *)\/(.*) \(([^()]+)\)\r?$/.exec(line);
    if (row === null) continue;
    const [, indent = "", name = "", type = ""] = row;
    path.length = indent.length / 2;
    path.push(name);
    // the machine's own type is compared by its name
    if (path.length > 1 && !PASSING.includes(type)) devices.push(`${path.slice(1).join("/")} (${type})`);
  }
  return devices;
}

/** What is behind a bridge QEMU lists once the firmware has numbered its bus: not before the guest has come. */
const placeOf = ({ slot, function: part, id }: PciDevice): string =>
  `PCI ${slot.toString(16).padStart(2, "0")}.${part} (${id.vendor.toString(16)}:${id.device.toString(16)})`;
