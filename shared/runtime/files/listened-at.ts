/**
 * Tells whether a program listens at a unix socket. Nothing is said to that program. Whether a QEMU listens at the
 * socket of a guest is told by isListenedAt() (guest/guest-socket.ts), which follows no link that a guest has made.
 */
import { connect } from "node:net";

/**
 * Tells whether the socket at a path was left behind by a program that has ended. Tries to connect to find out.
 * @returns true only where there is a socket and the connection is refused. A program that hangs accepts no connection,
 *   but its socket does not refuse one either
 */
export const isLeftBehind = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(false);
    });
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code === "ECONNREFUSED"));
  });
