/** The directory in which an agent meets the QEMU of a guest, and what that QEMU may do with the agent's files there. */
import { existsSync } from "node:fs";
import { chmod, readdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { guestDirectory } from "../guest-directory.ts";

/**
 * Finds where the sockets of a migration are. A guest has a directory of its own on this host, or has none.
 * @param name of the guest
 */
export function meetingPlace(name: string, runtimeDirectory: string): string {
  const own = guestDirectory(name, runtimeDirectory);
  return existsSync(own) ? own : runtimeDirectory;
}

/** Finds every directory on this host in which an agent may have left files of its own: the runtimeDirectory first. */
export async function meetingPlaces(runtimeDirectory: string): Promise<readonly string[]> {
  const parent = dirname(guestDirectory("any", runtimeDirectory));
  const names = await readdir(parent).catch(() => []);
  return [runtimeDirectory, ...names.map((name) => join(parent, name))];
}

/** Rights on a file of the agent by which a QEMU of another user connects to a socket or writes to a file. */
const WRITABLE = 0o602;

/**
 * Lets the QEMU of a guest write to a file, or connect to a socket, that this agent has just made. Only in a directory
 * of another user does that change anything: nobody but that user and the agents can enter such a directory.
 */
export async function admitQemu(path: string): Promise<void> {
  const { uid } = await stat(dirname(path));
  if (uid !== process.getuid?.()) await chmod(path, WRITABLE);
}
