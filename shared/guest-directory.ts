/**
 * The directories in which an agent and the QEMU of a guest meet. Their sockets are there, and the file with the memory
 * that `--verify` compares. A guest either has a directory of its own or uses the agent's `runtimeDirectory`. The
 * directory of a QEMU with a user of its own belongs to this user; the agent's group may use it, and no other guest can
 * enter it (docs/decisions/0047).
 */

/**
 * Makes the path of the directory that a guest may have for itself. `{guest}` in the guest's definition stands for this
 * path. The directory need not exist: the function does not look at the host.
 */
export const guestDirectory = (name: string, runtimeDirectory: string): string => `${runtimeDirectory}-guests/${name}`;

/**
 * Makes the path of the file into which the destination agent writes the command line of a guest's QEMU before systemd
 * starts that QEMU (systemd/ferry-guest@.service).
 */
export const commandFile = (name: string, runtimeDirectory: string): string => `${runtimeDirectory}-commands/${name}`;

/** The `runtimeDirectory` for which systemd/ferry-guest@.service is written. */
export const UNITS_RUNTIME_DIRECTORY = "/run/ferry";
