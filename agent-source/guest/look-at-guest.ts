/** Finds out everything that a migration must know of a guest before it asks the destination. Reads only. */
import { MigrationFault } from "../../shared/fault.ts";
import {
  type FoundDevices,
  isPlugged,
  readDevices,
  readPlugged,
  readTree,
} from "../../shared/qemu/inspect/guest-devices.ts";
import {
  type FoundDisks,
  readDisks,
  readSignature,
  refuseDisks,
  replacedImages,
} from "../../shared/qemu/inspect/guest-disks.ts";
import { inspectSource, type SourceFacts } from "../../shared/qemu/inspect/preflight.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import type { OwnQemu } from "./own-qemu.ts";

interface HasQemu {
  readonly qemu: OwnQemu;
}

/** What is known of a guest that is to be moved. */
export interface FoundGuest extends SourceFacts, FoundDevices {
  readonly disks: FoundDisks;
}

/**
 * Makes the QEMU that answers at this monitor the QEMU of this migration, and asks it about the guest.
 * @param path of the monitor's socket
 * @throws MigrationFault "qmp-…", `not-supported`; reasons against the migration are not thrown but listed
 */
export async function lookAtGuest(qmp: QmpClient, path: string, cx: HasQemu): Promise<FoundGuest> {
  const met = cx.qemu.meet(qmp, path);
  const tree = readTree(qmp);
  const [facts, devices, disks] = await Promise.all([
    inspectSource(qmp, tree),
    readDevices(qmp, tree),
    met.then(() => disksOf(qmp, cx, tree)),
  ]);
  return { ...facts, ...devices, disks, refusals: [...facts.refusals, ...refuseDisks(disks)] };
}

/** The devices and disks of the guest that the destination has compared with its own and accepted. */
export type Agreed = Pick<FoundGuest, "devices" | "disks">;

/**
 * Checks that the images are still at their paths. The agent does so just before the guest stops, and once more when
 * the guest stands still, because each QEMU opens the images again by their paths: the source's when the guest stops,
 * to read them only, and the destination's when the guest starts there, to write to them.
 * @throws MigrationFault `disks-changed`
 */
export async function checkPaths({ disks }: Agreed): Promise<void> {
  const files = await replacedImages(disks);
  if (files.length === 0) return;
  throw new MigrationFault(
    "disks-changed",
    `Somebody has put another file in the place of ${files.join(", ")} while the guest was copied; the guest's QEMU still has the earlier file open`,
    {
      advice:
        "Put the earlier file back at its path, then migrate again; if it has no name left, it is lost when QEMU ends",
    },
  );
}

/**
 * Checks that the disks and devices are those that were agreed on, now that the guest stands still.
 * @throws MigrationFault `disks-changed`, `devices-changed`
 */
export async function checkAgreed(qmp: QmpClient, agreed: Agreed, cx: HasQemu): Promise<void> {
  await Promise.all([checkDisks(qmp, agreed.disks, cx), checkPaths(agreed), checkDevices(qmp, agreed.devices)]);
}

/**
 * Checks that no device has come or gone. QEMU removes a device that it was told to unplug when the guest releases it,
 * which may happen while the guest is copied.
 * @throws MigrationFault `devices-changed`
 */
async function checkDevices(qmp: QmpClient, agreed: readonly string[]): Promise<void> {
  const devices = new Set(await readPlugged(qmp));
  const gone = agreed.filter(isPlugged).filter((one) => !devices.delete(one));
  if (gone.length === 0 && devices.size === 0) return;
  const words = [...gone.map((one) => `${one} is gone`), ...[...devices].map((one) => `${one} is new`)];
  throw new MigrationFault(
    "devices-changed",
    `Somebody has plugged or unplugged devices while the guest was copied: ${words.join("; ")}`,
    { advice: "Write the devices that the guest has now into its definition on both hosts, then migrate again" },
  );
}

async function checkDisks(qmp: QmpClient, agreed: FoundDisks, cx: HasQemu): Promise<void> {
  if ((await readSignature(qmp)) === agreed.signature) return;
  const found = await disksOf(qmp, cx);
  const jobs = found.jobs.length > 0 ? ` (${found.jobs.join(", ")})` : "";
  throw new MigrationFault(
    "disks-changed",
    `Somebody has changed the guest's disks while it was copied: ${differences(agreed, found)}${jobs}`,
    { advice: "Migrate again once the disks, media, snapshots and block jobs of the guest are as they are to be" },
  );
}

const disksOf = (qmp: QmpClient, { qemu }: HasQemu, tree?: Promise<string>): Promise<FoundDisks> =>
  readDisks(qmp, qemu.process?.pid ?? 0, tree);

function differences(agreed: FoundDisks, found: FoundDisks): string {
  const shown = ({ layers }: FoundDisks["drives"][number]): string =>
    layers.map(({ file, byteLength }) => `${file} of ${byteLength} bytes`).join(" on ") || "no medium";
  const before = new Map(agreed.drives.map((drive) => [drive.name, shown(drive)]));
  const now = new Map(found.drives.map((drive) => [drive.name, shown(drive)]));
  const changed = [...new Set([...before.keys(), ...now.keys()])].filter((name) => before.get(name) !== now.get(name));
  if (changed.length === 0) return "a block job has begun or ended, or a disk may not be written any more";
  return changed
    .map((name) => `${name} was ${before.get(name) ?? "not there"} and is ${now.get(name) ?? "gone"}`)
    .join("; ");
}
