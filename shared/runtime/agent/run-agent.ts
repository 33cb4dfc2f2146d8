/** What both agents' programs do around their service: print help, start, say so, stop in order. */
import { type FaultCode, MigrationFault } from "../../fault.ts";
import { notifySystemd } from "../host/systemd-notify.ts";
import type { Logger } from "../log/log.ts";
import { watchLoop } from "./loop-watch.ts";
import { feedWatchdog, watchdogLimitMs } from "./watchdog.ts";

export interface RunningAgent {
  readonly log: Logger;
  /** One line for `systemctl status`. */
  readonly status: string;
  readonly graceMs: number;
  /** Ends or aborts what is under way and closes the listener. */
  stop(): Promise<void>;
}

/** For systemd and the log: where an agent serves other agents, and operators. */
export function listeningText(address: string, operatorSocket: string | undefined): string {
  const operators = operatorSocket === undefined ? "no socket of operators" : `unix:${operatorSocket} for operators`;
  return address === ""
    ? `Listening at ${operators}; for no other agent (listen)`
    : `Listening at ${address}; ${operators}`;
}

/** What an agent that could not start exits with; documented in docs/operations.md, "Exit codes of the agents". */
const FAILED_EXIT = 1;
const EXITS: Partial<Readonly<Record<FaultCode, number>>> = { configuration: 2, "agent-running": 3 };

/**
 * Starts an agent and keeps it until SIGTERM or SIGINT; a second one of these ends it at once. SIGHUP and SIGUSR1 are
 * logged, and change nothing.
 */
export async function runAgent(help: string | undefined, start: () => Promise<RunningAgent>): Promise<void> {
  if (help !== undefined) {
    process.stdout.write(help);
    return;
  }
  // whatever the agent and what it starts make is for its own user, however the agent was started
  process.umask(0o077);
  let known: Logger | undefined;
  // without a listener SIGHUP would end the agent, and systemd takes that for a clean end and does not start it again
  process.on("SIGHUP", () => known?.info("SIGHUP changes nothing: settings are read when the agent starts"));
  // without a listener SIGUSR1 would open Node's inspector, and any user of this host could run code in the agent
  process.on("SIGUSR1", () => known?.warn("SIGUSR1 changes nothing: Node's inspector cannot be opened in an agent"));
  const agent = await startOrExit(start);
  const { log, status } = agent;
  known = log;
  const tell = (state: Parameters<typeof notifySystemd>[0]): Promise<void> =>
    notifySystemd(state).catch((thrown: unknown) => log.warn({ fault: thrown }, "systemd was not told"));
  let stopping = false;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (stopping) process.exit(1);
    stopping = true;
    log.info({ signal }, "stopping");
    // a migration that cannot be ended in time is ended by whoever starts this agent next
    const late = setTimeout(() => process.exit(1), agent.graceMs);
    tell({ stopping: true })
      .then(() => agent.stop())
      .then(() => {
        clearTimeout(late);
        log.info("stopped");
        process.exit(0);
      })
      .catch((thrown: unknown) => {
        log.error({ fault: thrown }, "could not stop in order");
        process.exit(1);
      });
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
  // Node's own warnings, as what the log has else: one line of JSON each, not text between them
  process.removeAllListeners("warning");
  process.on("warning", ({ name, message }) => log.info({ warning: name }, message));
  // a promise that nobody waits for is a mistake of ours; it must not take the other migrations of this agent with it
  process.on("unhandledRejection", (reason) => log.error({ fault: reason }, "unhandled rejection: please report this"));
  log.info(status);
  if (log.isLevelEnabled("debug")) watchLoop(log);
  await tell({ ready: true, status });
  const limitMs = watchdogLimitMs(process.env);
  if (limitMs !== undefined) feedWatchdog(limitMs, () => notifySystemd({ watchdog: true }), log);
}

async function startOrExit(start: () => Promise<RunningAgent>): Promise<RunningAgent> {
  try {
    return await start();
  } catch (thrown) {
    const fault = MigrationFault.from(thrown);
    process.stderr.write(`${fault.message}\n${fault.advice === undefined ? "" : `${fault.advice}\n`}`);
    // for good: what the start has opened or taken up must not go on in a process without a port
    return process.exit(EXITS[fault.code] ?? FAILED_EXIT);
  }
}
