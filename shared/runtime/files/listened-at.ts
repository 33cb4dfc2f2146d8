/**
 * Tells whether a program listens at a unix socket. Nothing is said to that program, and no greeting is waited for,
 * because a monitor may serve another client.
 */
import { connect } from "node:net";

/** Tries to connect. @returns false only where it is proven that no program listens */
export async function isListenedAt(path: string): Promise<boolean> {
  const code = await failureAt(path);
  return code !== "ECONNREFUSED" && code !== "ENOENT";
}

/**
 * Tries to connect.
 * @returns true only where there is a socket and the connection is refused. A program that hangs accepts no connection,
 *   but its socket does not refuse one either
 */
export const isLeftBehind = async (path: string): Promise<boolean> => (await failureAt(path)) === "ECONNREFUSED";

/** @returns the code of the error that kept the connection from being made; empty when it was made */
function failureAt(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve("");
    });
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code));
  });
}
