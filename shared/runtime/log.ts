/** The agents' log: JSON lines on stderr, for journald. Secrets never get into it. */
import { type Logger as PinoLogger, pino } from "pino";
import { MigrationFault } from "../fault.ts";

export type Logger = PinoLogger;

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** A reader of the log that stands still must not stop an agent that holds a guest: beyond this, lines are dropped. */
const BUFFERED_BYTES_MAX = 1 << 20;

/** Wherever a grant, an offer or a hello is logged whole. */
const SECRETS = ["token", "*.token", "*.*.token", "refusedToken", "*.refusedToken"];

export interface LogDestination {
  write(line: string): void;
}

/** @param destination stderr when left out */
export function createLogger(name: string, level: LogLevel, destination?: LogDestination): Logger {
  return pino(
    {
      name,
      level,
      redact: { paths: SECRETS, censor: "[secret]" },
      serializers: { err: serializeError, fault: serializeError },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination ?? pino.destination({ dest: 2, sync: false, maxLength: BUFFERED_BYTES_MAX }),
  );
}

/** A logger whose every line carries the migration it is about. */
export const migrationLogger = (logger: Logger, migrationId: string): Logger => logger.child({ migrationId });

/** Ours: what happened, the guest, the advice. The stack only of what nobody expected. */
function serializeError(thrown: unknown): Record<string, unknown> {
  if (!(thrown instanceof Error)) return { message: String(thrown) };
  const known = thrown instanceof MigrationFault;
  const line: Record<string, unknown> = { message: thrown.message };
  if (known) {
    line.code = thrown.code;
    if (thrown.guestNow !== undefined) line.guestNow = thrown.guestNow;
    if (thrown.advice !== undefined) line.advice = thrown.advice;
    if (thrown.role !== undefined) line.role = thrown.role;
    if (thrown.refusals.length > 0) line.refusals = thrown.refusals;
  }
  if (thrown.cause !== undefined && thrown.cause !== thrown) line.cause = serializeError(thrown.cause);
  if (!known || thrown.code === "internal") line.stack = thrown.stack;
  return line;
}
