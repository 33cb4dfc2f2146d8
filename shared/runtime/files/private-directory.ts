/**
 * Makes the directories that an agent has for itself: the directory of its journal, which has tokens in it, and the
 * directory of its guests' sockets, each of which gives control of a whole guest. The group may be given a right on
 * purpose. All other users have none.
 */
import { accessSync, chmodSync, constants, mkdirSync, readdirSync, type Stats, statSync } from "node:fs";
import { resolve } from "node:path";
import { MigrationFault } from "../../fault.ts";
import { invalid } from "../config-checks.ts";

/** The bits in the mode of a file with the rights of all users who are neither the owner nor in the group. */
export const OTHERS = 0o007;

/**
 * Makes the directory where it is missing, with mode 0700, and takes the rights of others away from one that is there.
 * @param key the setting that names the directory
 * @returns its absolute path
 * @throws MigrationFault `configuration` for a directory that cannot be used, for a directory of a user who is neither
 *   root nor the agent's own, and for a directory of root that others may enter, unless the agent is root and the
 *   directory is empty
 */
export function privateDirectory(key: string, path: string): string {
  const directory = resolve(path);
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    accessSync(directory, constants.R_OK | constants.W_OK | constants.X_OK);
    const found = statSync(directory);
    if (!found.isDirectory()) throw invalid(key, `${directory} is not a directory`, `Set ${key}`);
    closeToOthers(key, directory, found);
  } catch (thrown) {
    if (thrown instanceof MigrationFault) throw thrown;
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw invalid(key, `cannot be used: ${reason}`, `Make ${directory} for the agent's user, or set ${key}`);
  }
  return directory;
}

/** Takes the rights of others away, or refuses the directory. */
function closeToOthers(key: string, directory: string, { mode, uid }: Stats): void {
  const own = process.getuid?.();
  if (uid !== own && uid !== 0)
    throw invalid(
      key,
      `${directory} belongs to user ${uid}, who could replace whatever the agent makes in it`,
      `Start the agent as that user, or give it the directory (chown), or set ${key} to another`,
    );
  if ((mode & OTHERS) === 0) return;
  // root owns /run and /tmp as well, so an agent that runs as root corrects a directory only while it is empty: others
  // may need what is in it
  if (own === uid && (own !== 0 || readdirSync(directory).length === 0)) {
    chmodSync(directory, mode & 0o7777 & ~OTHERS);
    return;
  }
  const octal = (mode & 0o7777).toString(8).padStart(4, "0");
  throw invalid(
    key,
    `${directory} has mode ${octal}, so every user of this host could reach the guests or the journal in it`,
    `chmod o-rwx ${directory}, if it is the agent's alone; else set ${key} to a directory that is`,
  );
}
