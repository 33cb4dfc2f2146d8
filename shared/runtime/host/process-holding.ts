/**
 * Finds the process of this host that holds a socket or a lock, by Linux's /proc. The answer is good for messages only:
 * /proc hides the processes of other users from an agent that is not root, and a process may end while it is looked
 * for.
 */
import { readdir, readFile, readlink, stat } from "node:fs/promises";

/** The most characters of a command line that are shown. The program stands at the beginning. */
const COMMAND_MAX = 160;

export interface Holder {
  readonly pid: number;
  /** The beginning of the process's command line, with spaces between the words; empty when it cannot be read. */
  readonly command: string;
}

/** The state of a socket that listens, in /proc/net/tcp. */
const LISTENS = "0A";

/** Finds the process that holds a unix socket. @param name as in /proc/net/unix: an abstract name begins with "@" */
export async function holderOfUnixSocket(name: string): Promise<Holder | undefined> {
  const table = await readFile("/proc/net/unix", "utf8").catch(() => "");
  // columns: Num RefCount Protocol Flags Type St Inode Path
  const row = /^\S+: (?:\S+ +){5}(\d+) (.+)$/;
  const inodes = table.split("\n").flatMap((line) => {
    const [, inode, path] = row.exec(line) ?? [];
    return inode !== undefined && path === name ? [inode] : [];
  });
  return holderOfSocket(new Set(inodes));
}

/** Finds the process that listens at a TCP port of this network namespace, at whatever address. */
export async function holderOfPort(port: number): Promise<Holder | undefined> {
  const hexadecimal = port.toString(16).toUpperCase().padStart(4, "0");
  const inodes = new Set<string>();
  for (const name of ["tcp", "tcp6"]) {
    const table = await readFile(`/proc/net/${name}`, "utf8").catch(() => "");
    for (const line of table.split("\n")) {
      const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
      if (state === LISTENS && inode !== undefined && local?.endsWith(`:${hexadecimal}`)) inodes.add(inode);
    }
  }
  return holderOfSocket(inodes);
}

/** Finds the process that holds the flock(2) lock on a file or directory. */
export async function holderOfFileLock(path: string): Promise<Holder | undefined> {
  const { dev, ino } = await stat(path);
  return holderOf(async (pid, descriptor) => {
    const open = await stat(`/proc/${pid}/fd/${descriptor}`).catch(() => undefined);
    if (open?.dev !== dev || open.ino !== ino) return false;
    const info = await readFile(`/proc/${pid}/fdinfo/${descriptor}`, "utf8").catch(() => "");
    return /^lock:.* FLOCK /m.test(info);
  });
}

function holderOfSocket(inodes: ReadonlySet<string>): Promise<Holder | undefined> {
  if (inodes.size === 0) return Promise.resolve(undefined);
  const wanted = new Set([...inodes].map((inode) => `socket:[${inode}]`));
  return holderOf(async (pid, descriptor) =>
    wanted.has(await readlink(`/proc/${pid}/fd/${descriptor}`).catch(() => "")),
  );
}

/** Finds the first process with an open file for which `isWanted` is true. */
async function holderOf(isWanted: (pid: string, descriptor: string) => Promise<boolean>): Promise<Holder | undefined> {
  for (const pid of await readdir("/proc").catch(() => [])) {
    if (!/^\d+$/.test(pid)) continue;
    for (const descriptor of await readdir(`/proc/${pid}/fd`).catch(() => []))
      if (await isWanted(pid, descriptor)) return { pid: Number(pid), command: await commandOf(pid) };
  }
  return undefined;
}

const commandOf = async (pid: string): Promise<string> =>
  (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).slice(0, COMMAND_MAX).replaceAll("\0", " ").trim();
