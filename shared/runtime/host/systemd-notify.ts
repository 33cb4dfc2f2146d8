/**
 * Tells systemd the state of the agent (sd_notify(3)). Node has no datagram sockets of AF_UNIX, so the program
 * systemd-notify is run. It is a process of its own, hence NotifyAccess=all in the units. Without NOTIFY_SOCKET nothing
 * happens.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { MigrationFault } from "../../fault.ts";

export interface ServiceState {
  /** Told once, when the agent serves. */
  readonly ready?: true;
  /** Told once, when the agent begins to stop. */
  readonly stopping?: true;
  /** Told again and again: the agent's event loop turns (watchdog.ts). */
  readonly watchdog?: true;
  /** One line for `systemctl status`. */
  readonly status?: string;
}

/** Absolute paths, so that PATH does not decide what runs with the agent's rights. */
const PROGRAMS = ["/usr/bin/systemd-notify", "/bin/systemd-notify"];
/** How long systemd-notify may take, milliseconds. */
const PATIENCE_MS = 5000;

/**
 * Tells systemd the state. Resolves when systemd has taken note.
 * @param programs for tests
 * @throws MigrationFault `configuration` when systemd cannot be told; the agent itself works on as before
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
