/**
 * Puts the media that a guest has into the removable drives of the destination's QEMU. A source says which files these
 * are, and QEMU opens any file of this host that it is told to open: one of another guest, or a key. So a medium is put
 * in only if the definition of the guest on this host names it, or if it lies in a directory of the setting
 * `guests.media` (docs/design/disks.md#media-are-carried-nothing-else).
 */
import { realpath, stat } from "node:fs/promises";
import { isAbsolute, normalize } from "node:path";
import { MigrationFault, type Refusal } from "../../shared/fault.ts";
import type { Drive, GuestDisks, Image } from "../../shared/protocol/messages.ts";
import { type FoundDisks, readDisks } from "../../shared/qemu/inspect/guest-disks.ts";
import { inodeOfStats } from "../../shared/qemu/inspect/open-files.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";

/** A medium that may be put into a drive here. */
interface Medium extends Pick<Image, "file" | "format" | "writable"> {
  /** Device and inode of the file that was checked; undefined for a medium of the definition, which is not checked. */
  readonly inode: string | undefined;
}

/** What is to be done to a removable drive. */
interface MediumChange {
  /** The name of the drive, and the name by which QEMU takes commands for it. */
  readonly drive: string;
  readonly qdev: string;
  /** Undefined where the drive is to be empty. */
  readonly medium: Medium | undefined;
}

export interface MediaPlan {
  readonly changes: readonly MediumChange[];
  /** The drives whose medium here is not the guest's: those of `changes`, and those whose medium is refused. */
  readonly drives: ReadonlySet<string>;
  readonly refusals: readonly Refusal[];
  /** Why each medium is refused. This is for the log of this host only, since it tells what files this host has. */
  readonly reasons: readonly string[];
}

/**
 * Finds the removable drives whose medium is not the guest's, and decides on each. QEMU is not asked for anything.
 * @param found the disks of a QEMU that has what the definition names
 * @param offered the disks of the guest, as its source describes them; where undefined, no drive is to be changed
 * @param directories the setting `guests.media`
 */
export async function planMedia(
  found: FoundDisks,
  offered: GuestDisks | undefined,
  directories: readonly string[],
): Promise<MediaPlan> {
  const changes: MediumChange[] = [];
  const drives = new Set<string>();
  const refusals: Refusal[] = [];
  const reasons: string[] = [];
  for (const { name: drive, qdev, removable, layers } of found.drives) {
    const wanted = offered?.drives.find(({ name }) => name === drive);
    if (!removable || wanted === undefined || describe(wanted.layers) === describe(layers)) continue;
    drives.add(drive);
    const [top] = wanted.layers;
    const medium = top === undefined ? undefined : await allowed(top, wanted, found, directories);
    if (typeof medium !== "string") changes.push({ drive, qdev, medium });
    else {
      refusals.push(notAllowed(wanted));
      reasons.push(`${top?.file} for drive ${drive} ${medium}`);
    }
  }
  return { changes, drives, refusals, reasons };
}

/** Describes the medium in a drive; empty where there is none. */
const describe = (layers: Drive["layers"]): string =>
  layers.map(({ format, file, writable }) => `${format} ${file} ${writable}`).join(" on ");

/**
 * Decides whether a medium may be put in.
 * @returns the medium if it may be put in; otherwise why not, as the end of a sentence that begins with the file
 */
async function allowed(
  top: Image,
  { layers }: Drive,
  found: FoundDisks,
  directories: readonly string[],
): Promise<Medium | string> {
  const { file, format, writable } = top;
  // QEMU takes a name with a protocol for an address (nbd:, http:, json:), and a path with ".." leads elsewhere
  if (!isAbsolute(file) || normalize(file) !== file) return "is no absolute path";
  if (isOfDefinition(top, found)) return { file, format, writable, inode: undefined };
  if (writable) return "is to be written to, and the definition here does not say so";
  if (format !== "raw" || layers.length > 1) return "is not raw, and the definition here does not name it";
  let why = "is in no directory of guests.media";
  for (const directory of directories) {
    // nothing is looked at outside of the directories: a look at some paths mounts a file system of another host
    if (!file.startsWith(`${directory}/`)) continue;
    const seen = await seenIn(directory, file);
    if (seen.mistake === undefined) return { file, format, writable, inode: seen.inode };
    why = seen.mistake;
  }
  return why;
}

/**
 * Tells whether QEMU has opened this file for the definition, in this format: in a removable drive, or for no device.
 * The offered medium must be for reading only, unless the definition lets the guest write to the file. Options beside
 * the format, such as `offset`, are not compared, since QEMU takes none of them when a medium is put into a drive.
 */
const isOfDefinition = ({ file, format, writable }: Image, { drives }: FoundDisks): boolean =>
  /^[\w-]+$/.test(format) &&
  drives.some(({ removable, place, layers: [own] }) => {
    if (!removable && place !== "") return false;
    return own?.file === file && own.format === format && (own.writable || !writable);
  });

/**
 * Looks at a file below a directory of `guests.media`.
 * @returns what is wrong, or the inode of the very file that was found to be right, since another one may be put there
 *   before QEMU opens it
 */
async function seenIn(
  directory: string,
  file: string,
): Promise<{ readonly mistake: string } | { readonly mistake: undefined; readonly inode: string }> {
  try {
    const [inside, real] = await Promise.all([realpath(directory), realpath(file)]);
    if (!real.startsWith(`${inside}/`)) return { mistake: `leads out of ${directory}, to ${real}` };
    const found = await stat(real, { bigint: true });
    if (!found.isFile() && !found.isBlockDevice()) return { mistake: "is neither a regular file nor a block device" };
    return { mistake: undefined, inode: inodeOfStats(found) };
  } catch (thrown) {
    return { mistake: `cannot be looked at: ${MigrationFault.from(thrown).message}` };
  }
}

/** Makes the refusal of a medium. It has the same words whether or not this host has such a file. */
const notAllowed = ({ name, layers }: Drive): Refusal => ({
  code: "medium",
  message: `The guest has ${layers[0]?.file} in drive ${name} now, which may not be put in at the destination: it is neither a medium of the guest's definition there, nor a raw file, for reading only, in a directory of guests.media. Put the medium at that path in such a directory there, or eject it at the source; the log of the destination agent says what is wrong with it`,
});

/**
 * Changes the media of a QEMU as planned.
 * @param isCheck true for a QEMU that is ended right after the check: no medium is ejected from it then, and a drive
 *   that is to be empty is only returned as empty
 * @returns the disks that the QEMU has after the changes, and a refusal for each change that failed or cannot be
 *   verified
 */
export async function changeMedia(
  { qmp, pid }: { readonly qmp: QmpClient; readonly pid: number },
  { changes }: MediaPlan,
  found: FoundDisks,
  isCheck: boolean,
): Promise<{ readonly disks: FoundDisks; readonly refusals: readonly Refusal[] }> {
  const refusals: Refusal[] = [];
  const ejections = changes.filter(({ medium }) => medium === undefined);
  const ejected = new Set(ejections.map(({ drive }) => drive));
  // ejections come first: QEMU may lock a medium that is to go from one drive into another one
  const said = [...(isCheck ? [] : ejections), ...changes.filter(({ medium }) => medium !== undefined)];
  const taken: MediumChange[] = [];
  for (const change of said)
    await changeMedium(qmp, change).then(
      () => taken.push(change),
      (thrown: unknown) => refusals.push(notTaken(change, thrown)),
    );
  const now = said.length === 0 ? found : await readDisks(qmp, pid);
  const drives = now.drives.map((drive) => (isCheck && ejected.has(drive.name) ? { ...drive, layers: [] } : drive));
  for (const { drive, medium } of taken) {
    const [top] = drives.find(({ name }) => name === drive)?.layers ?? [];
    if (medium?.inode === undefined || top === undefined || top.inode === medium.inode) continue;
    refusals.push({
      code: "medium",
      message: `Drive ${drive} was not seen to have the file that was found at ${medium.file} at the destination: another file was put there meanwhile, or the agent may not see which files QEMU has open`,
    });
  }
  return { disks: { ...now, drives }, refusals };
}

/** Puts a medium into a drive, or ejects what is in it. */
async function changeMedium(qmp: QmpClient, { qdev: id, medium }: MediumChange): Promise<void> {
  if (medium === undefined) await qmp.execute("eject", { id, force: true });
  else {
    const { file: filename, format, writable } = medium;
    const mode = writable ? "read-write" : "read-only";
    await qmp.execute("blockdev-change-medium", { id, filename, format, force: true, "read-only-mode": mode });
  }
}

/** Makes the refusal for a medium that QEMU does not take. */
const notTaken = ({ drive, medium }: MediumChange, thrown: unknown): Refusal => ({
  code: "disks",
  message: `The guest has ${medium?.file ?? "no medium"} in drive ${drive} now, and the destination's QEMU does not take that: ${MigrationFault.from(thrown).message}; make the medium reachable at the same path there, or eject it`,
});
