/**
 * The directory in which an agent meets the QEMU of a guest, and what that QEMU may do with the agent's files there.
 */
import { existsSync } from "node:fs";
import { type FileHandle, readdir, stat } from "node:fs/promises";
import type { Server } from "node:net";
import { dirname, join } from "node:path";
import { guestDirectory } from "../../guest-directory.ts";
import { listenWithMode } from "../files/listen-with-mode.ts";

/**
 * Finds where the sockets of a migration are. A guest has a directory of its own on this host, or has none.
 * @param name of the guest
 */
export function meetingPlace(name: string, runtimeDirectory: string): string {
  const own = guestDirectory(name, runtimeDirectory);
  return existsSync(own) ? own : runtimeDirectory;
}

/** What of a migration says where its files are. */
export interface HasFiles {
  readonly id: string;
  readonly config: { readonly runtimeDirectory: string };
}

/** The path ID.KIND of a socket or a file that an agent and the guest's QEMU both use in a migration. */
export const migrationFile = (guest: string, { id, config }: HasFiles, kind: string): string =>
  join(meetingPlace(guest, config.runtimeDirectory), `${id}.${kind}`);

/** Finds every directory on this host in which an agent may have left files of its own: the runtimeDirectory first. */
export async function meetingPlaces(runtimeDirectory: string): Promise<readonly string[]> {
  const parent = dirname(guestDirectory("any", runtimeDirectory));
  const names = await readdir(parent).catch(() => []);
  return [runtimeDirectory, ...names.map((name) => join(parent, name))];
}

/** Rights on a file of the agent by which a QEMU of another user connects to a socket or writes to a file. */
const WRITABLE = 0o602;

/** Whether a file at this path is in a directory of another user, whom its QEMU runs as. */
async function isTheirs(path: string): Promise<boolean> {
  const { uid } = await stat(dirname(path));
  return uid !== process.getuid?.();
}

/**
 * Lets the QEMU of a guest write to a file that this agent has just made. Only in a directory of another user does that
 * change anything: nobody but that user and the agents can enter such a directory.
 * @param file open: at its path the guest may have put a link by now
 */
export async function admitToFile(file: FileHandle, path: string): Promise<void> {
  if (await isTheirs(path)) await file.chmod(WRITABLE);
}

/**
 * Listens at a path to which the QEMU of a guest connects. The socket has its rights from the start: at its path the
 * guest may put a link as soon as it is there.
 */
export async function listenForQemu(server: Server, path: string): Promise<void> {
  await listenWithMode(server, path, (await isTheirs(path)) ? WRITABLE : 0o777 & ~process.umask());
}
