/**
 * The disks of a guest as its QEMU has them open now, which need not be what its definition says: somebody may have
 * taken a snapshot, changed a medium, or plugged a disk. Reads only.
 *
 * Shapes: qapi/block-core.json of QEMU (query-block, query-named-block-nodes, query-block-jobs).
 */
import { readdir, readFile, readlink, realpath, stat } from "node:fs/promises";
import { basename, isAbsolute, join } from "node:path";
import type { Refusal } from "../fault.ts";
import type { Drive, GuestDisks, Image } from "../protocol/messages.ts";
import type { QmpClient } from "./qmp-client.ts";
import type { BlockInfo, BlockNode, ImageInfo, QmpCommands } from "./qmp-types.ts";

/** A drive, and the name by which QEMU takes commands for its medium: an id or a path of its object tree. */
export interface FoundDrive extends Drive {
  readonly qdev: string;
}

export interface FoundDisks extends GuestDisks {
  readonly drives: readonly FoundDrive[];
  /** Files that QEMU has open and that are not at their path any more. */
  readonly gone: readonly string[];
  /** Block jobs that have not ended, each as a few words. */
  readonly jobs: readonly string[];
  /** Another text means other disks (readSignature). */
  readonly signature: string;
}

/** Drivers whose node is a file or a block device of this host. */
const FILE_DRIVERS: readonly string[] = ["file", "host_device", "host_cdrom"];

/** @param pid of this QEMU, whose open files tell which file is behind a path */
export async function readDisks(qmp: QmpClient, pid: number): Promise<FoundDisks> {
  const [said, files, boot] = await Promise.all([ask(qmp), OpenFiles.of(pid), bootId()]);
  const { blocks, nodes, jobs } = said;
  const writable = new Set(nodes.filter((node) => node.ro !== true).map((node) => pathOf(node.file ?? "")));
  const imageOf = ({ format, filename, "virtual-size": byteLength }: ImageInfo): Promise<Image> =>
    files.image({ format, file: plain(filename), byteLength, writable: writable.has(pathOf(filename)) });
  const drives: FoundDrive[] = [];
  for (const block of blocks)
    drives.push({
      ...{ name: nameOf(block), qdev: block.qdev ?? block.device, removable: block.removable },
      layers: await Promise.all(layersOf(block.inserted?.image).map(imageOf)),
    });
  const known = new Set(drives.flatMap(({ layers }) => layers.map(({ file }) => pathOf(file))));
  // what a quorum, a separate data file or a node without a device has open
  for (const { drv: format, file, ro, image } of nodes) {
    if (!FILE_DRIVERS.includes(format ?? "") || file === undefined || known.has(pathOf(file))) continue;
    known.add(pathOf(file));
    const given = { format: format ?? "", file: plain(file), byteLength: image?.["virtual-size"] ?? 0 };
    const layers = [await files.image({ ...given, writable: ro !== true })];
    drives.push({ name: plain(file), qdev: "", removable: false, layers });
  }
  return { boot, drives, gone: files.gone, jobs: lasting(jobs), signature: signatureOf(said) };
}

/** What QEMU says of its disks, in one round trip. */
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

const lasting = (jobs: Said["jobs"]): readonly string[] =>
  jobs.filter(({ status }) => status !== "concluded").map(({ type, device }) => `${type} of ${device}`);

/** A text that a later look must find again; a tray that opens and closes, and a file that grows, change nothing. */
function signatureOf({ blocks, nodes, jobs }: Said): string {
  const layers = ({ inserted }: BlockInfo): unknown[] =>
    layersOf(inserted?.image).map(({ format, filename, "virtual-size": byteLength }) => [format, filename, byteLength]);
  return JSON.stringify([
    blocks.map((block) => [block.device, block.qdev, layers(block)]),
    nodes.map(({ drv, file, ro }) => [drv, file, ro]),
    lasting(jobs),
  ]);
}

/** The signature of the disks as they are now: all that is looked at while the guest stands still. */
export const readSignature = async (qmp: QmpClient): Promise<string> => signatureOf(await ask(qmp));

/** What a source has against a migration of these disks. */
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
      message: `${file} is not there any more, and only this QEMU still has it open: what the guest writes ends with this QEMU. A drive with snapshot=on is like that; commit it, or start the guest without`,
    });
  return refusals;
}

/** The name that the definition gives: of the drive, or of the device. */
const nameOf = ({ device, qdev }: BlockInfo): string =>
  device !== "" ? device : (qdev ?? "").replace(/^\/machine\/peripheral\//, "").replace(/\/virtio-backend$/, "");

const layersOf = (image: ImageInfo | undefined): readonly ImageInfo[] =>
  image === undefined ? [] : [image, ...layersOf(image["backing-image"])];

/** QEMU writes `json:{…}` for a file whose options a plain name does not hold. */
function plain(file: string): string {
  if (!file.startsWith("json:")) return file;
  try {
    const given = JSON.parse(file.slice("json:".length)) as { filename?: unknown; file?: { filename?: unknown } };
    const name = given.file?.filename ?? given.filename;
    return typeof name === "string" ? name : file;
  } catch {
    return file;
  }
}

/**
 * The path of a file on this host; empty where it is a URL or another storage (path_has_protocol in QEMU's block.c).
 */
export function pathOf(file: string): string {
  const name = plain(file).replace(/^file:(\/\/(?=\/))?/, "");
  return /^[a-z0-9+_.-]+:/i.test(name) ? "" : name;
}

const bootId = async (): Promise<string> =>
  (await readFile("/proc/sys/kernel/random/boot_id", "utf8").catch(() => "")).trim();

/** The files that a process has open. */
class OpenFiles {
  /** Files that the process has open and that are not at their path. */
  readonly gone: string[] = [];
  private readonly inodes: ReadonlySet<string> | undefined;
  private readonly folder: string;

  /** A process whose files this agent may not see is taken at its word. */
  static async of(pid: number): Promise<OpenFiles> {
    const folder = `/proc/${pid}/fd`;
    const names = await readdir(folder).catch(() => undefined);
    const found = await Promise.all((names ?? []).map((name) => inodeOf(join(folder, name))));
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => "/");
    return new OpenFiles(names === undefined ? undefined : new Set(found), cwd);
  }

  private constructor(inodes: ReadonlySet<string> | undefined, folder: string) {
    this.inodes = inodes;
    this.folder = folder;
  }

  async image(of: Omit<Image, "inode" | "baseName">): Promise<Image> {
    const given = pathOf(of.file);
    if (given === "") return { ...of, inode: "", baseName: "" };
    const path = isAbsolute(given) ? given : join(this.folder, given);
    const inode = await inodeOf(path);
    const isGone = inode === "" || this.inodes?.has(inode) === false;
    if (isGone && !this.gone.includes(path) && !path.startsWith("/dev/fdset/")) this.gone.push(path);
    const baseName = basename(await realpath(path).catch(() => path));
    return { ...of, file: path, inode: isGone ? "" : inode, baseName };
  }
}

/** Device and inode of a file, or the number of a block device; empty where there is none. */
async function inodeOf(path: string): Promise<string> {
  const found = await stat(path, { bigint: true }).catch(() => undefined);
  if (found === undefined) return "";
  return found.isBlockDevice() ? `block ${found.rdev}` : `${found.dev}:${found.ino}`;
}
