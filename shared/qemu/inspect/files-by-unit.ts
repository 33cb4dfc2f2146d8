/**
 * Finds the open files of a QEMU of another user. Linux shows them to that user alone, so a program of the guest's unit
 * looks (ExecReload= of systemd/ferry-guest@.service) and leaves a list in the guest's directory. A guest that broke
 * out of its QEMU could write anything there: it can deceive the agent about its own files, but about no other guest's
 * (docs/decisions/0047).
 */
import { rm } from "node:fs/promises";
import { MigrationFault } from "../../fault.ts";
import { guestDirectory, UNITS_RUNTIME_DIRECTORY } from "../../guest-directory.ts";
import { Systemctl, unitOf } from "./guest-unit.ts";
import { openUnfollowed } from "./unfollowed-file.ts";

/** The longest list that is read, bytes: some 20 000 open files. */
const BYTES_MAX = 1 << 20;

/**
 * How often a list is asked for at most. The host's other agent may look at the same guest, and remove a list before it
 * is read.
 */
const TIMES = 5;

/** What the program of the unit has seen. */
export interface SeenFiles {
  /** The process's working directory. */
  readonly folder: string;
  /** The open files, as inodeOf() names them. */
  readonly inodes: ReadonlySet<string>;
  /** Lines of /proc/PID/fdinfo that begin with "lock:". */
  readonly locks: readonly string[];
}

/**
 * Finds the open files of a process.
 * @returns undefined for a process in no unit of a guest, and where the unit does not answer
 */
export async function filesByUnit(pid: number, systemctl = new Systemctl()): Promise<SeenFiles | undefined> {
  const found = await unitOf(pid);
  if (found === undefined) return undefined;
  const path = `${guestDirectory(found.guest, UNITS_RUNTIME_DIRECTORY)}/open-files`;
  return await inTurn(path, () => look(path, () => systemctl.tell("reload", found.unit)));
}

/** Looks of this agent that are under way, by the path of their list. */
const underWay = new Map<string, Promise<SeenFiles | undefined>>();

/** Begins a look when the looks before it have ended, since each look begins by removing the list of the last one. */
async function inTurn(path: string, begin: () => Promise<SeenFiles | undefined>): Promise<SeenFiles | undefined> {
  const mine = (underWay.get(path) ?? Promise.resolve(undefined)).then(begin);
  underWay.set(path, mine);
  try {
    return await mine;
  } finally {
    if (underWay.get(path) === mine) underWay.delete(path);
  }
}

/**
 * Has a list made, and reads it. Never rejects. Exported for its tests.
 * @param make resolves with a complaint, or with undefined when the list is there
 * @returns undefined where there is no whole list
 */
export async function look(path: string, make: () => Promise<string | undefined>): Promise<SeenFiles | undefined> {
  try {
    for (let times = 0; times < TIMES; times++) {
      await rm(path, { force: true });
      if ((await make()) !== undefined) return undefined;
      const text = await readOwn(path).catch((thrown: NodeJS.ErrnoException) => {
        if (thrown.code !== "ENOENT") throw thrown;
      });
      if (text !== undefined) return parseSeenFiles(text);
    }
    return undefined;
  } catch {
    return undefined;
  } finally {
    await rm(path, { force: true }).catch(() => undefined);
  }
}

/** Reads a regular file of bounded length, and follows no link. @throws MigrationFault `internal` for anything else */
async function readOwn(path: string): Promise<string> {
  const file = await openUnfollowed(path);
  try {
    const found = await file.stat();
    if (!found.isFile() || found.size > BYTES_MAX)
      throw new MigrationFault("internal", `${path} is no list of open files`);
    const content = Buffer.alloc(found.size);
    const { bytesRead } = await file.read(content, 0, content.length, 0);
    return content.toString("utf8", 0, bytesRead);
  } finally {
    await file.close();
  }
}

/**
 * A line of the list: the device and the inode of a file, the major and the minor number of a device file in
 * hexadecimal, and the kind of the file.
 */
const FILE = /^(\d{1,20}) (\d{1,20}) ([0-9a-f]{1,8}) ([0-9a-f]{1,8}) (.+)$/;

/** Parses a list. Exported for its tests. @returns undefined for a list that does not end as a whole list does */
export function parseSeenFiles(text: string): SeenFiles | undefined {
  const [folder, ...lines] = text.split("\n");
  if (folder === undefined || !folder.startsWith("/") || lines.at(-2) !== "end" || lines.at(-1) !== "")
    return undefined;
  const inodes = new Set<string>();
  for (const line of lines) {
    const [, device, inode, major, minor, kind] = FILE.exec(line) ?? [];
    if (kind === undefined) continue;
    inodes.add(kind.startsWith("block") ? `block ${deviceNumber(`0x${major}`, `0x${minor}`)}` : `${device}:${inode}`);
  }
  return { folder, inodes, locks: lines.filter((line) => line.startsWith("lock:")) };
}

/**
 * Puts the two numbers of a device together as glibc's makedev(3) does, which is the form in which stat(2) tells them.
 */
function deviceNumber(majorText: string, minorText: string): bigint {
  const [major, minor] = [BigInt(majorText), BigInt(minorText)];
  return ((major & 0xfffff000n) << 32n) | ((major & 0xfffn) << 8n) | ((minor & 0xffffff00n) << 12n) | (minor & 0xffn);
}
