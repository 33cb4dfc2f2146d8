/** The command of a guest, and what an agent knows of one that was started: by command-run.ts or unit-run.ts. */
import type { Systemctl } from "../../shared/qemu/inspect/guest-unit.ts";

/** A program and its arguments. */
export type Command = readonly [program: string, ...rest: string[]];

/** How a command ended: in one of the three ways. */
export interface CommandEnd {
  readonly code?: number | null;
  readonly signal?: NodeJS.Signals | null;
  readonly error?: Error;
}

export interface CommandRun {
  /** The process of the command; 0 when it could not be started. */
  readonly pid: number;
  /** Settles when the command has ended. Never rejects. */
  readonly ended: Promise<CommandEnd>;
  /** True for a process that the command is, or has started, and that has not ended. */
  isOurs(pid: number): Promise<boolean>;
  /** Kills the processes. Never rejects: their end is looked for afterwards. */
  kill(pids: readonly number[]): Promise<void>;
}

/** The unit of a guest of another user. */
export interface OwnUnit {
  /** ferry-guest@NAME.service. */
  readonly unit: string;
  /** The file from which the unit takes the command. */
  readonly commandPath: string;
  readonly systemctl: Systemctl;
}
