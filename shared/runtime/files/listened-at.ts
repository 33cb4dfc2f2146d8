/**
 * Tells whether somebody listens at a unix socket. It says nothing to them and waits for no greeting, because a monitor
 * may serve another client.
 */
import { connect } from "node:net";

/** Tries to connect. @returns false only where it is proven that nobody listens */
export async function isListenedAt(path: string): Promise<boolean> {
  const code = await failureAt(path);
  return code !== "ECONNREFUSED" && code !== "ENOENT";
}

/**
 * Tries to connect.
 * @returns true only where there is a socket and the connection is refused. A program that hangs takes no connection,
 *   and still has its socket: that is no refusal
 */
export const isLeftBehind = async (path: string): Promise<boolean> => (await failureAt(path)) === "ECONNREFUSED";

/** @returns the code of what keeps a connection from being made; empty when one was made */
function failureAt(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve("");
    });
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code));
  });
}
