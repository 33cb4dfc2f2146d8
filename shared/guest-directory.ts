/**
 * Where an agent and the QEMU of a guest meet: their sockets, and the file of a comparison. A QEMU of the agent's own
 * user uses the agent's runtimeDirectory. A QEMU of a user of its own has a directory that its user owns, that the
 * agent's group may use, and that no other guest can enter: docs/decisions/0047.
 */

/** The directory of a guest, which `{guest}` in its definition stands for. No path of the host is looked at. */
export const guestDirectory = (name: string, runtimeDirectory: string): string => `${runtimeDirectory}-guests/${name}`;

/** Where the agent leaves the command of a guest that systemd starts (systemd/ferry-guest@.service). */
export const commandFile = (name: string, runtimeDirectory: string): string => `${runtimeDirectory}-commands/${name}`;

/** The runtimeDirectory that systemd/ferry-guest@.service is written for. */
export const UNITS_RUNTIME_DIRECTORY = "/run/ferry";
