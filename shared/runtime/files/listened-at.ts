/**
 * Tells whether a program listens at a unix socket. Nothing is said to that program. Whether a QEMU listens at the
 * socket of a guest is told by isListenedAt() (guest/guest-socket.ts), which follows no link that a guest has made.
 */
import { connect } from "node:net";

/**
 * Tries to connect.
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
