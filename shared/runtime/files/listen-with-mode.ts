/** Listens at a unix socket that has its permissions from the moment at which it exists. */
import type { Server } from "node:net";

/**
 * Listens at `path`. A chmod afterwards would be too late, because other users could connect before it. Where another
 * user may write to the directory, a chmod could also change the mode of something else that this user has put at the
 * path.
 * @param mode the permissions of the socket
 * @throws the error of listen()
 */
export function listenWithMode(server: Server, path: string, mode: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    // the kernel makes the socket before listen() returns, with all permissions that the umask leaves
    const before = process.umask(0o777 & ~mode);
    server.listen(path, resolve);
    process.umask(before);
  });
}
