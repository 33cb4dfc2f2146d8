/**
 * Does what the programs of both agents do around their service: print the help, start, tell systemd, stop in order.
 */
import { type FaultCode, MigrationFault } from "../../fault.ts";
import { systemClock } from "../clock.ts";
import { notifySystemd } from "../host/systemd-notify.ts";
import type { Logger } from "../log/log.ts";
import { watchLoop } from "./loop-watch.ts";
import { feedWatchdog, watchdogLimitMs } from "./watchdog.ts";

export interface RunningAgent {
  readonly log: Logger;
  /** One line for `systemctl status`. */
  readonly status: string;
  /** How long stop() may take, milliseconds, before the process exits. */
  readonly graceMs: number;
  /** Ends or aborts what is under way and closes the listener. */
  stop(): Promise<void>;
}

/** Says at which addresses an agent serves other agents and operators, for systemd and the log. */
export function listeningText(address: string, operatorSocket: string | undefined): string {
  const operators = operatorSocket === undefined ? "no socket of operators" : `unix:${operatorSocket} for operators`;
  return address === ""
    ? `Listening at ${operators}; no address for other agents (the setting listen is empty)`
    : `Listening at ${address}; ${operators}`;
}

/**
 * The exit code of an agent that could not start, where EXITS has none for the fault. docs/operations.md documents them
 * all under "Exit codes of the agents".
 */
const FAILED_EXIT = 1;
const EXITS: Partial<Readonly<Record<FaultCode, number>>> = { configuration: 2, "agent-running": 3 };

/**
 * Starts an agent and keeps it running until SIGTERM or SIGINT; a second such signal ends the process at once. SIGHUP
 * and SIGUSR1 are logged, and change nothing.
 * @param help the text to print instead of a start; undefined to start
 */
export async function runAgent(help: string | undefined, start: () => Promise<RunningAgent>): Promise<void> {
  if (help !== undefined) {
    process.stdout.write(help);
    return;
  }
  // files of the agent, and of the programs that it starts, are for its own user, however the agent was started
  process.umask(0o077);
  let known: Logger | undefined;
  // without a listener SIGHUP would end the agent; systemd takes that for a clean end and does not start it again
  process.on("SIGHUP", () => known?.info("SIGHUP changes nothing: settings are read when the agent starts"));
  // without a listener SIGUSR1 would open Node's inspector, and any user of this host could run code in the agent
  process.on("SIGUSR1", () => known?.warn("SIGUSR1 changes nothing: Node's inspector cannot be opened in an agent"));
  const agent = await startOrExit(start);
  const { log, status } = agent;
  known = log;
  const tell = (state: Parameters<typeof notifySystemd>[0]): Promise<void> =>
    notifySystemd(state).catch((thrown: unknown) =>
      log.warn({ fault: thrown }, "systemd could not be told the agent's state"),
    );
  let stopping = false;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (stopping) process.exit(1);
    stopping = true;
    log.info({ signal }, "stopping");
    // a migration that cannot be ended in time stays in the journal, and the next start of the agent takes it up
    const late = systemClock.after(agent.graceMs, () => process.exit(1));
    tell({ stopping: true })
      .then(() => agent.stop())
      .then(() => {
        systemClock.cancel(late);
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
  // Node's own warnings become lines of JSON like all others, not text between these
  process.removeAllListeners("warning");
  process.on("warning", ({ name, message }) => log.info({ warning: name }, message));
  // a rejection that nothing awaits is a mistake of this program; it must not end the agent's other migrations
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
    // the process ends here: what the start has opened or taken up must not go on in a process without a port
    return process.exit(EXITS[fault.code] ?? FAILED_EXIT);
  }
}
