/** Opens what a guest that broke out of its QEMU may have put into the directory that it shares with the agent. */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";

/**
 * Opens without following a link, and without waiting for the other end of a pipe. Whoever calls this closes the file,
 * and looks first whether it is one.
 * @throws the error of the file system, ELOOP for a link
 */
export const openUnfollowed = (path: string): Promise<FileHandle> =>
  open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
