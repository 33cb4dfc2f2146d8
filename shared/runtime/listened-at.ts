/**
 * Tells whether somebody listens at a unix socket. It says nothing to them and waits for no greeting, because a monitor
 * may serve another client.
 */
import { connect } from "node:net";

/** Tries to connect. @returns false only where it is proven that nobody listens */
export function isListenedAt(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", (error: NodeJS.ErrnoException) =>
      resolve(error.code !== "ECONNREFUSED" && error.code !== "ENOENT"),
    );
  });
}
