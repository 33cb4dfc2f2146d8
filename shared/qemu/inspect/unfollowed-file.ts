/**
 * Opens files that a guest which broke out of its QEMU may have put into the directory that it shares with the agent.
 */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";

/**
 * Opens a file without following a link, and without waiting for the other end of a pipe. The caller closes the handle,
 * and checks before any use that it is a regular file.
 * @throws the error of the file system, which is ELOOP for a link
 */
export const openUnfollowed = (path: string): Promise<FileHandle> =>
  open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
