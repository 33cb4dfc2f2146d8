/**
 * The command of a guest, and what an agent can do with one that was started. command-run.ts and unit-run.ts implement
 * CommandRun.
 */
import type { Systemctl } from "../../shared/qemu/inspect/guest-unit.ts";

/** A program and its arguments. */
export type Command = readonly [program: string, ...rest: string[]];

/** How a command ended: by an exit code, by a signal, or by an error because it could not be started. */
export interface CommandEnd {
  readonly code?: number | null;
  readonly signal?: NodeJS.Signals | null;
  readonly error?: Error;
}

/** A command that was started. */
export interface CommandRun {
  /** The process of the command; 0 when the command could not be started. */
  readonly pid: number;
  /** Settles when the command has ended. Never rejects. */
  readonly ended: Promise<CommandEnd>;
  /** True for a process that is the command, or that the command has started, as long as it has not ended. */
  isOurs(pid: number): Promise<boolean>;
  /**
   * Kills these processes. A command in a unit of its own is killed with all processes of the unit, unless `pids` is
   * empty. Never rejects: the caller looks afterwards whether the processes have ended.
   */
  kill(pids: readonly number[]): Promise<void>;
}

/** The unit in which systemd starts a guest as a user of its own. */
export interface OwnUnit {
  /** The name of the unit: ferry-guest@NAME.service. */
  readonly unit: string;
  /** The file from which the unit takes the command. */
  readonly commandPath: string;
  readonly systemctl: Systemctl;
}
