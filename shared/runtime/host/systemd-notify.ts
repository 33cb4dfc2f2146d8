/**
 * Tells systemd how the agent stands (sd_notify(3)). Node has no datagram sockets of AF_UNIX, so systemd-notify is run;
 * it is a process of its own, hence NotifyAccess=all in the units. Without NOTIFY_SOCKET nothing happens.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { MigrationFault } from "../../fault.ts";

export interface ServiceState {
  /** Once, when the agent serves. */
  readonly ready?: true;
  /** Once, when it begins to stop. */
  readonly stopping?: true;
  /** Again and again: the agent's event loop turns (watchdog.ts). */
  readonly watchdog?: true;
  /** One line for `systemctl status`. */
  readonly status?: string;
}

/** By absolute path: PATH is not to decide what runs with the agent's rights. */
const PROGRAMS = ["/usr/bin/systemd-notify", "/bin/systemd-notify"];
const PATIENCE_MS = 5000;

/**
 * Resolves when systemd has taken note.
 * @throws MigrationFault configuration when it cannot be told; the agent itself is none the worse
 */
export function notifySystemd(
  state: ServiceState,
  env: NodeJS.ProcessEnv = process.env,
  programs: readonly string[] = PROGRAMS,
): Promise<void> {
  const socket = env.NOTIFY_SOCKET;
  if (socket === undefined || socket === "") return Promise.resolve();
  const program = programs.find((path) => existsSync(path));
  const told: string[] = [];
  if (state.ready) told.push("READY=1");
  if (state.stopping) told.push("STOPPING=1");
  if (state.watchdog) told.push("WATCHDOG=1");
  if (state.status !== undefined) told.push(`STATUS=${state.status.replaceAll("\n", " ")}`);
  const failed = (reason: string, cause?: unknown): MigrationFault =>
    new MigrationFault("configuration", `Cannot tell systemd ${told.join(" ")}: ${reason}`, {
      cause,
      advice: "Install systemd-notify and set NotifyAccess=all in the unit, or make it Type=exec",
    });
  if (program === undefined) return Promise.reject(failed(`there is no ${programs.join(" or ")}`));
  return new Promise((resolve, reject) => {
    const options = { env: { NOTIFY_SOCKET: socket }, timeout: PATIENCE_MS };
    execFile(program, told, options, (error, _, stderr) => {
      if (error === null) resolve();
      else reject(failed(stderr.trim() || error.message, error));
    });
  });
}
