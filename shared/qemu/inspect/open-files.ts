/** Finds the files that a QEMU has open, by the names that QEMU gives. */
import type { BigIntStats } from "node:fs";
import { readdir, readlink, realpath, stat } from "node:fs/promises";
import { basename, isAbsolute, join } from "node:path";
import type { Image } from "../../protocol/messages.ts";
import { filesByUnit } from "./files-by-unit.ts";

interface NodeOptions {
  readonly filename?: unknown;
  readonly file?: unknown;
}

/**
 * Finds the name of the file in a name that QEMU gives. QEMU writes `json:{…}` where a plain name cannot hold the
 * options.
 * @returns the given text where it holds no name of a file
 */
export function plain(file: string): string {
  if (!file.startsWith("json:")) return file;
  try {
    return fileOf(JSON.parse(file.slice("json:".length))) ?? file;
  } catch {
    return file;
  }
}

/**
 * Finds the name of the file of a node or of the nodes below it: a filter may be above a format, which is above the
 * file.
 */
function fileOf(node: unknown): string | undefined {
  if (typeof node !== "object" || node === null) return undefined;
  const { filename, file }: NodeOptions = node;
  return typeof filename === "string" ? filename : fileOf(file);
}

/**
 * Finds the path of a file on this host.
 * @returns the empty text for a URL or another storage (path_has_protocol in QEMU's block.c)
 */
export function pathOf(file: string): string {
  const name = plain(file).replace(/^file:(\/\/(?=\/))?/, "");
  return /^[a-z0-9+_.-]+:/i.test(name) ? "" : name;
}

/** The files that a process has open. */
export class OpenFiles {
  /** The paths of images that the process does not have open under their path: another file is there now, or none. */
  readonly gone: string[] = [];
  /** Undefined where this agent may not see which files the process has open. */
  private readonly inodes: ReadonlySet<string> | undefined;
  private readonly folder: string;

  /** Looks at a process. Where this agent may not look, the guest's unit does (files-by-unit.ts). */
  static async of(pid: number): Promise<OpenFiles> {
    const folder = `/proc/${pid}/fd`;
    const names = await readdir(folder).catch(() => undefined);
    if (names === undefined) {
      const seen = await filesByUnit(pid);
      return new OpenFiles(seen?.inodes, seen?.folder ?? "/");
    }
    const found = await Promise.all(names.map((name) => inodeOf(join(folder, name))));
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => "/");
    return new OpenFiles(new Set(found), cwd);
  }

  private constructor(inodes: ReadonlySet<string> | undefined, folder: string) {
    this.inodes = inodes;
    this.folder = folder;
  }

  /** Makes a path absolute, by the process's working directory. A name that is no file of the host stays as it is. */
  resolve(file: string): string {
    const path = pathOf(file);
    if (path === "") return plain(file);
    return isAbsolute(path) ? path : join(this.folder, path);
  }

  /**
   * Completes an image with its absolute path, its inode and its base name. The inode is empty unless the process is
   * seen to have that file open. The path is added to `gone` where there is no file, or where the process is seen not
   * to have it open.
   */
  async image(of: Omit<Image, "inode" | "baseName">): Promise<Image> {
    if (pathOf(of.file) === "") return { ...of, inode: "", baseName: "" };
    const path = this.resolve(of.file);
    const inode = await inodeOf(path);
    const isGone = inode === "" || this.inodes?.has(inode) === false;
    if (isGone && !this.gone.includes(path) && !path.startsWith("/dev/fdset/")) this.gone.push(path);
    const isSeen = this.inodes?.has(inode) === true;
    return { ...of, file: path, inode: isSeen ? inode : "", baseName: await baseNameOf(path) };
  }
}

/** The last part of a file's path when all symbolic links are followed. */
export const baseNameOf = async (path: string): Promise<string> => basename(await realpath(path).catch(() => path));

/** Names a file as "DEVICE:INODE", or a block device as "block NUMBER". @returns the empty text where there is none */
export async function inodeOf(path: string): Promise<string> {
  const found = await stat(path, { bigint: true }).catch(() => undefined);
  return found === undefined ? "" : inodeOfStats(found);
}

/** Names a file as inodeOf() does. */
export const inodeOfStats = (found: BigIntStats): string =>
  found.isBlockDevice() ? `block ${found.rdev}` : `${found.dev}:${found.ino}`;
