/** Everything that a migration must know of a guest before it asks the destination. Reads only. */
import { MigrationFault } from "../shared/fault.ts";
import { readDevices } from "../shared/qemu/guest-devices.ts";
import { type FoundDisks, readDisks, readSignature, refuseDisks } from "../shared/qemu/guest-disks.ts";
import { inspectSource, type SourceFacts } from "../shared/qemu/preflight.ts";
import type { QmpClient } from "../shared/qemu/qmp-client.ts";
import type { SourceContext } from "./source-context.ts";

/** What is known of a guest that is to be moved. */
export interface FoundGuest extends SourceFacts {
  readonly devices: readonly string[];
  readonly disks: FoundDisks;
}

/**
 * Makes the QEMU that answers the one of this migration, and asks it.
 * @param path of its monitor's socket
 * @throws MigrationFault "qmp-…", `not-supported`; what speaks against the migration is listed and not thrown
 */
export async function lookAtGuest(qmp: QmpClient, path: string, cx: SourceContext): Promise<FoundGuest> {
  const met = cx.qemu.meet(qmp, path);
  const [facts, devices, disks] = await Promise.all([
    inspectSource(qmp),
    readDevices(qmp),
    met.then(() => disksOf(qmp, cx)),
  ]);
  return { ...facts, devices, disks, refusals: [...facts.refusals, ...refuseDisks(disks)] };
}

/**
 * Checks that the disks are those that were agreed on, now that the guest stands still.
 * @throws MigrationFault `disks-changed`
 */
export async function checkDisks(qmp: QmpClient, agreed: FoundDisks, cx: SourceContext): Promise<void> {
  if ((await readSignature(qmp)) === agreed.signature) return;
  const found = await disksOf(qmp, cx);
  const jobs = found.jobs.length > 0 ? ` (${found.jobs.join(", ")})` : "";
  throw new MigrationFault(
    "disks-changed",
    `Somebody has changed the guest's disks while it was copied: ${differences(agreed, found)}${jobs}`,
    { advice: "Migrate again once the disks, media, snapshots and block jobs of the guest are as they are to be" },
  );
}

const disksOf = (qmp: QmpClient, { qemu }: SourceContext): Promise<FoundDisks> =>
  readDisks(qmp, qemu.process?.pid ?? 0);

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
