/**
 * Finds the disks of a guest as its QEMU has them open now. They may differ from what the definition says, since
 * somebody may have taken a snapshot, changed a medium, or plugged a disk (docs/decisions/0046). Nothing is changed.
 *
 * The shapes of the answers are in qapi/block-core.json of QEMU (query-block, query-named-block-nodes,
 * query-block-jobs).
 */
import { readFile } from "node:fs/promises";
import type { Refusal } from "../../fault.ts";
import type { Drive, GuestDisks, Image } from "../../protocol/messages.ts";
import type { QmpClient } from "../qmp/qmp-client.ts";
import type { BlockInfo, BlockNode, ImageInfo, QmpCommands } from "../qmp/qmp-types.ts";
import { parseDeviceTree } from "./device-tree.ts";
import { readTree } from "./guest-devices.ts";
import { readMemoryFiles } from "./memory-files.ts";
import { inodeOf, OpenFiles, pathOf, plain } from "./open-files.ts";

/** A drive with the name by which QEMU takes commands for its medium: an id, or a path of QEMU's object tree. */
interface FoundDrive extends Drive {
  readonly qdev: string;
}

export interface FoundDisks extends GuestDisks {
  readonly drives: readonly FoundDrive[];
  /** The paths of files that QEMU has open and that are not at their path any more. */
  readonly gone: readonly string[];
  /** The block jobs that have not ended, each in a few words. */
  readonly jobs: readonly string[];
  /** A text that changes when the disks do (readSignature). */
  readonly signature: string;
}

/** The drivers of nodes that are a file or a block device of this host. */
const FILE_DRIVERS: readonly string[] = ["file", "host_device", "host_cdrom"];

/**
 * Finds the disks of a QEMU.
 * @param pid the process of this QEMU; its open files tell which file QEMU has at a path
 * @param asked the answer of readTree(), where it was asked for already
 */
export async function readDisks(qmp: QmpClient, pid: number, asked = readTree(qmp)): Promise<FoundDisks> {
  const [said, tree, memory, files, boot] = await Promise.all([
    ask(qmp),
    asked,
    readMemoryFiles(qmp),
    OpenFiles.of(pid),
    bootId(),
  ]);
  const { places } = parseDeviceTree(tree, new Set());
  const { blocks, nodes, jobs } = said;
  const writable = new Set(nodes.filter((node) => node.ro !== true).map((node) => pathOf(node.file ?? "")));
  const imageOf = ({ format, filename, "virtual-size": byteLength }: ImageInfo): Promise<Image> =>
    files.image({
      ...{ format: [format, ...optionsOf(filename)].join(" "), file: plain(filename), byteLength },
      writable: writable.has(pathOf(filename)),
    });
  const drives: FoundDrive[] = [];
  for (const block of blocks)
    drives.push({
      ...{ name: nameOf(block), qdev: block.qdev ?? block.device, removable: block.removable },
      place: places.get(block.device) ?? places.get(block.inserted?.["node-name"] ?? "") ?? "",
      layers: await Promise.all(layersOf(block.inserted?.image).map(imageOf)),
    });
  const known = new Set(drives.flatMap(({ layers }) => layers.map(({ file }) => file)));
  // files that no drive shows: those of a quorum, a separate data file, or a node without a device
  for (const { drv: format, file, ro, image } of nodes) {
    if (!FILE_DRIVERS.includes(format ?? "") || file === undefined || known.has(files.resolve(file))) continue;
    const name = files.resolve(file);
    known.add(name);
    const given = { format: format ?? "", file: plain(file), byteLength: image?.["virtual-size"] ?? 0 };
    const layers = [await files.image({ ...given, writable: ro !== true })];
    drives.push({ name, qdev: "", removable: false, place: "", layers });
  }
  return { boot, drives, memory, gone: files.gone, jobs: lasting(jobs), signature: signatureOf(said) };
}

/** Asks QEMU about its disks, in one round trip. */
async function ask(qmp: QmpClient): Promise<Said> {
  const [blocks, nodes, jobs] = await Promise.all([
    qmp.execute("query-block"),
    qmp.execute("query-named-block-nodes", { flat: true }),
    qmp.execute("query-block-jobs"),
  ]);
  return { blocks, nodes, jobs };
}

interface Said {
  readonly blocks: readonly BlockInfo[];
  readonly nodes: readonly BlockNode[];
  readonly jobs: QmpCommands["query-block-jobs"]["returns"];
}

/** Finds the jobs that have not ended. */
const lasting = (jobs: Said["jobs"]): readonly string[] =>
  jobs.filter(({ status }) => status !== "concluded").map(({ type, device }) => `${type} of ${device}`);

/**
 * Makes a text that changes when the disks do; a later look at the guest must make the same text. A tray that opens or
 * closes, and a file that grows, do not change the text.
 */
function signatureOf({ blocks, nodes, jobs }: Said): string {
  const layers = ({ inserted }: BlockInfo): unknown[] =>
    layersOf(inserted?.image).map(({ format, filename, "virtual-size": byteLength }) => [format, filename, byteLength]);
  return JSON.stringify([
    blocks.map((block) => [block.device, block.qdev, layers(block)]),
    nodes.map(({ drv, file, ro }) => [drv, file, ro]),
    lasting(jobs),
  ]);
}

/**
 * Makes the signature of the disks as they are now. Nothing else of the disks is looked at while the guest stands
 * still.
 */
export const readSignature = async (qmp: QmpClient): Promise<string> => signatureOf(await ask(qmp));

/** Finds the paths at which there is now another file than the one that QEMU has open. */
export async function replacedImages({ drives }: GuestDisks): Promise<readonly string[]> {
  const images = drives.flatMap(({ layers }) => layers).filter(({ inode }) => inode !== "");
  const isReplaced = await Promise.all(images.map(async ({ file, inode }) => (await inodeOf(file)) !== inode));
  return [...new Set(images.filter((_, at) => isReplaced[at]).map(({ file }) => file))];
}

/** Finds what speaks against a migration of these disks at the source. */
export function refuseDisks({ jobs, gone }: FoundDisks): readonly Refusal[] {
  const refusals: Refusal[] = [];
  if (jobs.length > 0)
    refusals.push({
      code: "block-job",
      message: `A block job is at work on the guest's disks (${jobs.join(", ")}): wait until it has ended, or end it (block-job-cancel)`,
    });
  for (const file of gone)
    refusals.push({
      code: "image-temporary",
      message: `${file} is not there any more, and only this QEMU still has it open: what the guest writes ends with this QEMU. This is so for a drive with snapshot=on: commit the drive, or start the guest without snapshot=on`,
    });
  return refusals;
}

/** Finds the name that the definition gives to the drive, or else to the device. */
const nameOf = ({ device, qdev }: BlockInfo): string =>
  device !== "" ? device : (qdev ?? "").replace(/^\/machine\/peripheral\//, "").replace(/\/virtio-backend$/, "");

/** Lists an image and the images below it, the top layer first. */
const layersOf = (image: ImageInfo | undefined): readonly ImageInfo[] =>
  image === undefined ? [] : [image, ...layersOf(image["backing-image"])];

/**
 * Reads the options of a node beside its file, from a name of the form `json:{…}`. The options are compared with
 * those of the other host as a part of the image's format, since a raw node may show the guest only a part of its file.
 * @returns each as "offset=4096"; nothing for a plain name
 */
export function optionsOf(file: string): readonly string[] {
  if (plain(file) === file) return [];
  const flat = (given: object, above: string): readonly string[] =>
    Object.entries(given).flatMap(([name, value]) =>
      typeof value === "object" && value !== null ? flat(value, `${above}${name}.`) : [`${above}${name}=${value}`],
    );
  // the file and the layers below it are compared by themselves
  return flat(JSON.parse(file.slice("json:".length)) as object, "").filter(
    (one) => !/^(driver|(file\.)*filename|(backing|data-file)\..*)=/.test(one) && !IS_FILE.test(one),
  );
}

const IS_FILE = new RegExp(`^(file\\.)+driver=(${FILE_DRIVERS.join("|")})$`);

const bootId = async (): Promise<string> =>
  (await readFile("/proc/sys/kernel/random/boot_id", "utf8").catch(() => "")).trim();
