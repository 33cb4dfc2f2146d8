/**
 * The devices that a QEMU has made, which need not be those of its definition: somebody may have plugged one in or out.
 * The human monitor gives the whole object tree in one answer (qom-hmp-cmds.c, hmp_info_qom_tree).
 */
import type { QmpClient } from "./qmp-client.ts";
import type { PciDevice } from "./qmp-types.ts";

/** Objects that come and go with what the guest does, or that no device state is of. */
const PASSING: readonly string[] = ["memory-region", "irq", "container"];

/** @returns each device as its path and type, and each PCI device by its place */
export async function readDevices(qmp: QmpClient): Promise<readonly string[]> {
  const [tree, buses] = await Promise.all([
    qmp.execute("human-monitor-command", { "command-line": "info qom-tree" }),
    // a machine without PCI has no such command
    qmp.execute("query-pci").catch(() => []),
  ]);
  return [...parseTree(tree), ...buses.flatMap(({ devices }) => placesOf(devices, ""))];
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

/** The guest numbers the buses behind bridges, so a place is the way to it from the root. */
function placesOf(devices: readonly PciDevice[], above: string): readonly string[] {
  return devices.flatMap(({ slot, function: part, id, pci_bridge: bridge }) => {
    const place = `${above}${slot.toString(16).padStart(2, "0")}.${part}`;
    const kind = `${id.vendor.toString(16)}:${id.device.toString(16)}`;
    return [`PCI ${place} (${kind})`, ...placesOf(bridge?.devices ?? [], `${place}/`)];
  });
}
