/**
 * Compares the disks that the guest has with those that the destination's QEMU has opened. A guest that goes on with
 * another file has lost what it wrote. So two files count as the same only where that is proven, unless the operator
 * answers for them (docs/design/disks.md#when-two-files-are-the-same). This file looks at no files: both agents have
 * done that before.
 */
import type { Refusal } from "../fault.ts";
import type { Drive, GuestDisks, Image } from "./messages.ts";

/** The outcome of the comparison. */
export interface DiskVerdict {
  readonly refusals: readonly Refusal[];
  /** What was not proven and the operator answers for (`--shared-disks-unchecked`), one sentence for each image. */
  readonly warnings: readonly string[];
}

/** What proves that two files are the same, or makes up for a proof. */
export interface DiskProofs {
  /** Paths of images at the destination beside which the source's mark was found (DiskMark in messages.ts). */
  readonly marked: ReadonlySet<string>;
  /** True when the operator answers for what cannot be proven (`--shared-disks-unchecked`). */
  readonly unchecked: boolean;
}

const MENDS_DEFINITION =
  "let the definitions of both hosts give the guest the drives that it has now (the same devices, formats and files), then start the migration again";
const UNCHECKED =
  "where you know that it is the same file on both hosts, migrate with --shared-disks-unchecked; else let both hosts share it";

/**
 * Compares the drives of both QEMUs, and the files that hold their memory.
 * @returns no refusals and no warnings where both QEMUs have the same drives with the same files
 */
export function compareDisks(theirs: GuestDisks, mine: GuestDisks, proofs: DiskProofs): DiskVerdict {
  const refusals: Refusal[] = [];
  const warnings: string[] = [];
  const refuse = (code: string, message: string): void => void refusals.push({ code, message });
  for (const drive of theirs.drives) {
    const own = mine.drives.find(({ name }) => name === drive.name);
    if (own === undefined && isIdle(drive)) continue;
    if (own === undefined)
      refuse("disks", `The guest has the drive ${drive.name}, which the destination's QEMU lacks; ${MENDS_DEFINITION}`);
    else compareDrive(drive, own);
  }
  for (const own of mine.drives)
    if (!isIdle(own) && !theirs.drives.some(({ name }) => name === own.name))
      refuse("disks", `The destination's QEMU has the drive ${own.name}, which the guest lacks; ${MENDS_DEFINITION}`);
  for (const one of theirs.memory ?? [])
    for (const own of mine.memory ?? [])
      if (judge(theirs, mine, one, own, proofs.marked) === "same")
        refuse(
          "memory-shared",
          `The destination's QEMU has its memory ${own.format} in ${one.file}, the file that holds the memory of the guest, and would write to it while the guest runs: give each host a file of its own (mem-path), or make it private (share=off)`,
        );
  return { refusals, warnings };

  function compareDrive(drive: Drive, own: Drive): void {
    if (shapeOf(drive) !== shapeOf(own)) {
      const message = `Drive ${drive.name} is ${describe(drive)} at the source, and ${describe(own)} at the destination`;
      refuse("disks", `${message}; ${MENDS_DEFINITION}`);
      return;
    }
    const [top, ownTop] = [drive.layers[0], own.layers[0]];
    if (top?.writable !== ownTop?.writable)
      refuse(
        "disks",
        `Drive ${drive.name} can be written only at the ${top?.writable ? "source" : "destination"}; ${MENDS_DEFINITION}`,
      );
    if (drive.place !== "" && own.place !== "" && drive.place !== own.place)
      refuse(
        "disks",
        `Drive ${drive.name} belongs to ${drive.place} at the source, and to ${own.place} at the destination; ${MENDS_DEFINITION}`,
      );
    drive.layers.forEach((image, at) => {
      const other = own.layers[at];
      if (other !== undefined) compareImage(drive.name, image, other);
    });
  }

  function compareImage(drive: string, image: Image, own: Image): void {
    const verdict = judge(theirs, mine, image, own, proofs.marked);
    if (verdict === "same") return;
    const both = own.file === image.file ? image.file : `${image.file} at the source, ${own.file} at the destination`;
    if (verdict === "other")
      refuse("disks", `Drive ${drive} is not the same file on both hosts: ${both}; ${MENDS_DEFINITION}`);
    else if (!proofs.unchecked)
      refuse(
        "disks-unproven",
        `Nobody can prove that drive ${drive} is the same file on both hosts: ${both}; ${UNCHECKED}`,
      );
    else warnings.push(`Drive ${drive} was not proven to be the same file on both hosts (${both}), as you allowed`);
  }
}

type Judgement = "same" | "other" | "unproven";

/** Judges whether an image at the source and an image at the destination are the same file. */
function judge(theirs: GuestDisks, mine: GuestDisks, image: Image, own: Image, marked: ReadonlySet<string>): Judgement {
  if (image.baseName === "" || own.baseName === "") return judgeRemote(image, own);
  const isOneHost = theirs.boot !== "" && theirs.boot === mine.boot;
  if (isOneHost && image.inode !== "" && own.inode !== "") return image.inode === own.inode ? "same" : "other";
  // each kernel numbers its block devices itself: /dev/mapper/web may lead to dm-3 on one host and to dm-5 on another
  if (image.baseName !== own.baseName) return isDevice(image) && isDevice(own) && !isOneHost ? "unproven" : "other";
  // neither QEMU writes to its image, so a copy is as good
  if (!image.writable && !own.writable) return "same";
  // where an agent could not see the file open in QEMU, another file may be at its path by now
  return marked.has(own.file) && image.inode !== "" && own.inode !== "" ? "same" : "unproven";
}

/**
 * Tells whether a drive need not be at both hosts: no device has the drive, and none of its layers may be written to.
 * After a medium was changed, QEMU may keep the node of the earlier medium open as such a drive.
 */
const isIdle = ({ place, layers }: Drive): boolean =>
  place === "" && layers.length > 0 && layers.every(({ writable }) => !writable);

const isDevice = ({ inode }: Image): boolean => inode.startsWith("block ");

/**
 * Judges images of which at least one is no file of its host. The same name means the same storage, unless the name
 * leads to the host itself or to a file descriptor.
 */
function judgeRemote(image: Image, own: Image): Judgement {
  if (image.file !== own.file) return "other";
  return /unix|localhost|127\.0\.0\.1|\[?::1|\/dev\/fdset\/|^fd:/.test(image.file) ? "unproven" : "same";
}

const shapeOf = ({ layers }: Drive): string =>
  layers.map(({ format, byteLength }) => `${format} ${byteLength}`).join(" on ");

const describe = ({ layers }: Drive): string =>
  layers.length === 0
    ? "without a medium"
    : layers.map(({ format, file, byteLength }) => `${file} (${format}, ${byteLength} bytes)`).join(" on ");
