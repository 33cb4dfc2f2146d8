/**
 * Names the unix sockets ID.KIND that the agents make in runtimeDirectory, and checks that their paths are short
 * enough.
 */
import { join } from "node:path";
import { MigrationFault } from "../../fault.ts";
import { SOCKET_PATH_BYTES } from "../../socket-path.ts";

/** Stands for the id of any migration, since all ids have this length. */
const ID = "0".repeat(12);

/** The kinds of sockets of a migration. */
const MIGRATION_SOCKETS = {
  source: ["stream"],
  destination: ["incoming", "monitor", "monitor-2"],
} as const;

/**
 * The kinds of sockets of a warm-up. The two agents use different kinds, since each agent removes at its start the
 * sockets that its earlier process has left behind.
 */
export const REHEARSAL_SOCKETS = {
  source: ["rehearsal", "rehearsal-peer", "rehearsal-monitor"],
  destination: ["rehearsal-destination", "rehearsal-destination-peer", "rehearsal-destination-monitor"],
} as const;

/**
 * Checks that the paths of all sockets of an agent are short enough.
 * @param rehearses true when the agent has the sockets of a warm-up, whose names are the longest
 * @throws MigrationFault `configuration` for a runtimeDirectory that is too long
 */
export function checkSocketPaths(role: "source" | "destination", runtimeDirectory: string, rehearses: boolean): void {
  const kinds = [...MIGRATION_SOCKETS[role], ...(rehearses ? REHEARSAL_SOCKETS[role] : [])];
  const longest = Math.max(...kinds.map((kind) => Buffer.byteLength(join(runtimeDirectory, `${ID}.${kind}`))));
  if (longest <= SOCKET_PATH_BYTES) return;
  const bytes = Buffer.byteLength(runtimeDirectory);
  throw new MigrationFault(
    "configuration",
    `runtimeDirectory ${runtimeDirectory} has ${bytes} bytes and may have ${bytes - (longest - SOCKET_PATH_BYTES)}: the path of a socket has at most ${SOCKET_PATH_BYTES}, and the agent's sockets are in it`,
    { advice: "Set runtimeDirectory to a shorter path, such as /run/ferry" },
  );
}
