/**
 * The generation id of a guest (device vmgenid), as the guest has it in its memory. A destination's QEMU writes an id
 * of its own there when it loads the guest, so that the guest notices that it has moved (hw/acpi/vmgenid.c,
 * vmgenid_post_load).
 */
import { MigrationFault } from "../../fault.ts";
import type { QmpClient } from "../qmp/qmp-client.ts";

/** Byte offset of the id in a page that holds nothing else (include/hw/acpi/vmgenid.h, VMGENID_GUID_OFFSET). */
const OFFSET = 40;
const BYTES = 16;

/**
 * Asks for the generation id of a guest.
 * @returns its 16 bytes in the order of the guest's memory; undefined for a guest without the device
 */
export async function readGenerationId(qmp: QmpClient): Promise<Uint8Array | undefined> {
  try {
    return bytesOf((await qmp.execute("query-vm-generation-id")).guid);
  } catch (thrown) {
    if (MigrationFault.from(thrown).code === "qmp-command") return undefined;
    throw thrown;
  }
}

/**
 * Tells whether a page holds the id at its offset and zeros elsewhere, as the page that firmware makes for the id does.
 */
export function holdsOnlyId(page: Uint8Array, id: Uint8Array): boolean {
  const end = OFFSET + BYTES;
  return page.every((byte, at) => byte === (at >= OFFSET && at < end ? id[at - OFFSET] : 0));
}

/**
 * Converts the text of a GUID to its 16 bytes in memory: the first three of its five parts are little-endian.
 * @throws MigrationFault `qmp-protocol` for a text that is no GUID
 */
function bytesOf(guid: string): Uint8Array {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(guid))
    throw new MigrationFault("qmp-protocol", `QEMU says ${JSON.stringify(guid)}, which is no GUID`);
  const [first = "", second = "", third = "", ...rest] = guid.split("-");
  const little = [first, second, third].map((part) => Buffer.from(part, "hex").reverse());
  return Buffer.concat([...little, Buffer.from(rest.join(""), "hex")]);
}
