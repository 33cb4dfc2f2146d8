/**
 * Says at which socket an agent serves the operators of its own host, and lets their group reach it. The socket itself
 * is made in shared/link/listen/unix-listener.ts.
 */
import { type ExecFileSyncOptionsWithStringEncoding, execFileSync } from "node:child_process";
import { chmodSync, chownSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { MigrationFault } from "../../fault.ts";
import type { CommonConfig } from "../config/config.ts";

export interface OperatorSocket {
  readonly path: string;
  /** The number of the group that may use the socket; undefined for the agent's own group. */
  readonly group: number | undefined;
}

/** The mode of a directory in which a member of the group can reach the socket by its name, but cannot list names. */
const OWNER_AND_PASSAGE = 0o710;
const PERMISSIONS = 0o777;
/** The bit of a directory's mode that gives the directory's group to everything that is made in the directory. */
const SET_GROUP = 0o2000;
/** How long getent may take, milliseconds. */
const GETENT_MS = 5000;

/**
 * Finds the operators' socket and its group. If the setting `operators.group` names a group and the socket is to be in
 * runtimeDirectory, that directory is also given to the group, so that members of the group reach the socket.
 * @returns undefined where operators of this host have no socket
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
      // under systemd the directory was made for the group (docs/operations.md, "Who may call"), and the agents' units
      // forbid chown(2)
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

/**
 * Finds the number of a group by getent(1), which knows the groups of this host's files and of network directories. A
 * name of digits is itself the number, and is not looked up.
 * @throws MigrationFault `configuration` where getent finds no such group
 */
function groupNumber(name: string): number {
  if (/^\d{1,9}$/.test(name)) return Number(name);
  try {
    const options: ExecFileSyncOptionsWithStringEncoding = { encoding: "utf8", timeout: GETENT_MS, stdio: "pipe" };
    const number = /^[^:]*:[^:]*:(\d+):/.exec(execFileSync("/usr/bin/getent", ["group", "--", name], options))?.[1];
    if (number !== undefined) return Number(number);
  } catch {
    // getent exits with 2 for a name that it does not find
  }
  throw new MigrationFault("configuration", `operators.group is ${JSON.stringify(name)}, which is no group here`, {
    advice: `Make it (groupadd --system ${name}), or set operators.group to a group that exists`,
  });
}
