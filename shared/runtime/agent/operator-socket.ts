/** The socket at which an agent serves the operators of its own host, and the group that may use it. */
import { type ExecFileSyncOptionsWithStringEncoding, execFileSync } from "node:child_process";
import { chmodSync, chownSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { MigrationFault } from "../../fault.ts";
import type { CommonConfig } from "../config/config.ts";

export interface OperatorSocket {
  readonly path: string;
  /** The number of the group that may use it; undefined: the agent's own. */
  readonly group: number | undefined;
}

/** A member of the group may go through the directory to the socket, and sees no names in it. */
const OWNER_AND_PASSAGE = 0o710;
const PERMISSIONS = 0o777;
/** In such a directory whatever is made gets the directory's group. */
const SET_GROUP = 0o2000;
const GETENT_MS = 5000;

/**
 * Gives runtimeDirectory to the group `operators.group`, so that its members reach the socket there.
 * @returns undefined where operators of the host have no socket
 * @throws MigrationFault `configuration`
 */
export function operatorSocket(config: CommonConfig): OperatorSocket | undefined {
  const { operatorSocketPath: path, operatorGroup, runtimeDirectory } = config;
  if (path === undefined) return undefined;
  if (operatorGroup === "") return { path, group: undefined };
  const group = groupNumber(operatorGroup);
  try {
    if (dirname(path) === runtimeDirectory) {
      const { gid, mode } = statSync(runtimeDirectory);
      // under the units it has been made so, and chown(2) is forbidden
      if (gid !== group) chownSync(runtimeDirectory, -1, group);
      if ((mode & PERMISSIONS) !== OWNER_AND_PASSAGE)
        chmodSync(runtimeDirectory, (mode & SET_GROUP) | OWNER_AND_PASSAGE);
    }
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new MigrationFault(
      "configuration",
      `runtimeDirectory ${runtimeDirectory} cannot be given to the group ${operatorGroup} (operators.group): ${reason}`,
      { cause: thrown, advice: "Make the agent's user a member of the group, or remove operators.group" },
    );
  }
  return { path, group };
}

/** Asks getent(1), which knows the groups of files and of directories in the network. */
function groupNumber(name: string): number {
  if (/^\d{1,9}$/.test(name)) return Number(name);
  try {
    const options: ExecFileSyncOptionsWithStringEncoding = { encoding: "utf8", timeout: GETENT_MS, stdio: "pipe" };
    const number = /^[^:]*:[^:]*:(\d+):/.exec(execFileSync("/usr/bin/getent", ["group", "--", name], options))?.[1];
    if (number !== undefined) return Number(number);
  } catch {
    // getent ends with 2 for a name that it does not find
  }
  throw new MigrationFault("configuration", `operators.group is ${JSON.stringify(name)}, which is no group here`, {
    advice: `Make it (groupadd --system ${name}), or set operators.group to one that there is`,
  });
}
