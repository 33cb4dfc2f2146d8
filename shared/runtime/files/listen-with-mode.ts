/** Listens at a unix socket that has its permissions from the moment it is there. */
import type { Server } from "node:net";

/**
 * Listens at `path`. A chmod afterwards would come late, and where another user may write to the directory, it could be
 * of whatever that user has put at the path.
 * @param mode of the socket
 * @throws the error of listen()
 */
export function listenWithMode(server: Server, path: string, mode: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    // the kernel makes a socket with all permissions that the umask leaves, before listen() returns
    const before = process.umask(0o777 & ~mode);
    server.listen(path, resolve);
    process.umask(before);
  });
}
