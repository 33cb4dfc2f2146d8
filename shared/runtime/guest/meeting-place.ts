/**
 * Says in which directory an agent meets the QEMU of a guest, and lets that QEMU use the agent's files there.
 */
import { existsSync } from "node:fs";
import { type FileHandle, readdir, stat } from "node:fs/promises";
import type { Server } from "node:net";
import { dirname, join } from "node:path";
import { guestDirectory } from "../../guest-directory.ts";
import { listenWithMode } from "../files/listen-with-mode.ts";

/**
 * Finds the directory with the sockets of a migration: the guest's own directory if this host has one, otherwise
 * runtimeDirectory.
 * @param name the name of the guest
 */
export function meetingPlace(name: string, runtimeDirectory: string): string {
  const own = guestDirectory(name, runtimeDirectory);
  return existsSync(own) ? own : runtimeDirectory;
}

/** The part of a migration that says where its files are. */
export interface HasFiles {
  readonly id: string;
  readonly config: { readonly runtimeDirectory: string };
}

/** Makes the path ID.KIND of a socket or file that both an agent and the guest's QEMU use in a migration. */
export const migrationFile = (guest: string, { id, config }: HasFiles, kind: string): string =>
  join(meetingPlace(guest, config.runtimeDirectory), `${id}.${kind}`);

/**
 * Finds every directory of this host in which an agent may have left files of its own. runtimeDirectory comes first.
 */
export async function meetingPlaces(runtimeDirectory: string): Promise<readonly string[]> {
  const parent = dirname(guestDirectory("any", runtimeDirectory));
  const names = await readdir(parent).catch(() => []);
  return [runtimeDirectory, ...names.map((name) => join(parent, name))];
}

/**
 * The mode of the agent's sockets to which a QEMU of another user may connect, and of its files to which that QEMU may
 * write.
 */
const WRITABLE = 0o602;

/** True when the directory of the path belongs to another user than the agent's: the user as whom the QEMU runs. */
async function isTheirs(path: string): Promise<boolean> {
  const { uid } = await stat(dirname(path));
  return uid !== process.getuid?.();
}

/**
 * Lets the QEMU of a guest write to a file that this agent has just made. The mode is changed only in a directory of
 * another user, which nobody but that user and the agents can enter.
 * @param file the open file; at its path the guest may have put a link by now
 */
export async function admitToFile(file: FileHandle, path: string): Promise<void> {
  if (await isTheirs(path)) await file.chmod(WRITABLE);
}

/**
 * Listens at a path to which the QEMU of a guest connects. The socket has its rights from the start, because the guest
 * may put a link in its place as soon as the socket is there.
 */
export async function listenForQemu(server: Server, path: string): Promise<void> {
  await listenWithMode(server, path, (await isTheirs(path)) ? WRITABLE : 0o777 & ~process.umask());
}
