/**
 * The upper limit of a unix socket's path. A longer path is cut off silently by Node and refused by QEMU, so that each
 * waits for the other: the limit is checked before anybody does.
 */

/** The kernel's sun_path, less the final zero. */
export const SOCKET_PATH_BYTES = 107;

/** Tells what is wrong with the path of a socket. @returns undefined where nothing is */
export function socketPathMistake(path: string): string | undefined {
  const bytes = new TextEncoder().encode(path).length;
  if (bytes <= SOCKET_PATH_BYTES) return undefined;
  return `has ${bytes} bytes, more than the ${SOCKET_PATH_BYTES} that a socket path may have: ${path}`;
}
