/**
 * The limit on the length of a unix socket's path. Node silently shortens a longer path, and QEMU refuses it, so that
 * an agent and a QEMU would wait for each other. The limit is therefore checked before either of them uses the path.
 */

/** The longest path of a unix socket, bytes: the kernel's `sun_path` without its final zero. */
export const SOCKET_PATH_BYTES = 107;

/**
 * Tells what is wrong with the path of a socket.
 * @returns the end of a sentence that begins with the path's name; undefined when the path is short enough
 */
export function socketPathMistake(path: string): string | undefined {
  const bytes = new TextEncoder().encode(path).length;
  if (bytes <= SOCKET_PATH_BYTES) return undefined;
  return `has ${bytes} bytes, more than the ${SOCKET_PATH_BYTES} that a socket path may have: ${path}`;
}
