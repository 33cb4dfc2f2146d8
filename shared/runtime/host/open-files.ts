/**
 * Checks how many files and sockets an agent may have open (`ulimit -n`, `LimitNOFILE=`). An agent that reaches this
 * limit in the middle of a migration can neither read its journal nor take a connection, so the limit is checked when
 * the agent starts.
 */
import { readFile } from "node:fs/promises";
import { MigrationFault } from "../../fault.ts";

/**
 * Files that an agent has open without a migration: Node's own, logs, certificates, listeners, a look through /proc.
 */
const ALWAYS = 96;
/** The most files of one migration at one time: monitors, streams, connections, files of the journal and of pages. */
const OF_A_MIGRATION = 24;

/**
 * The most connections beside those that `connections.max` counts: connections of strangers, connections that have not
 * shaken hands yet, and connections of unix sockets (STRANGERS_MAX in shared/link/callers/connection-limits.ts,
 * CONNECTIONS_MAX in shared/link/listen/unix-listener.ts).
 */
export const OTHER_CONNECTIONS = 288;

interface Limits {
  readonly migrationsMax: number;
  readonly connections: { readonly max: number };
}

/**
 * Checks that an agent may open as many files as its settings may make it need.
 * @param most the limit; for tests. @default the limit of this process, which Node has raised as far as it may
 * @throws MigrationFault `configuration` where the limit is too low
 */
export async function checkOpenFiles(
  { migrationsMax, connections }: Limits,
  most: number | undefined = undefined,
): Promise<void> {
  const limit = most ?? (await limitOfThisProcess());
  const needed = ALWAYS + OF_A_MIGRATION * migrationsMax + connections.max + OTHER_CONNECTIONS;
  if (limit >= needed) return;
  throw new MigrationFault(
    "configuration",
    `This agent may have ${limit} files open (ulimit -n), and needs ${needed} for migrations.max ${migrationsMax} and connections.max ${connections.max}`,
    {
      advice: `Set LimitNOFILE=${needed} or more in its unit, or ulimit -Hn before it starts; or lower those settings`,
    },
  );
}

/** @returns infinity where there is no limit, or where the limit cannot be read */
async function limitOfThisProcess(): Promise<number> {
  const text = await readFile("/proc/self/limits", "utf8").catch(() => "");
  const soft = /^Max open files\s+(\d+)/m.exec(text)?.[1];
  return soft === undefined ? Number.POSITIVE_INFINITY : Number(soft);
}
