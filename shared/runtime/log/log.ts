/** The agents' log: lines of JSON on stderr, for journald. Secrets never get into it. */
import { type Logger as PinoLogger, pino } from "pino";
import { MigrationFault } from "../../fault.ts";
import type { LineBudget } from "./line-budget.ts";
import { boundedFields, cutText, withoutSigns } from "./log-text.ts";

export type Logger = PinoLogger;

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/**
 * How many bytes of lines may wait until the reader of stderr takes them. Lines beyond this are dropped, since a reader
 * that takes no more lines must not stop an agent that holds a guest.
 */
const BUFFERED_BYTES_MAX = 1 << 20;

/** The paths of the fields that are secret, wherever a grant, an offer or a hello is logged as a whole. */
const SECRETS = ["token", "*.token", "*.*.token", "refusedToken", "*.refusedToken"];

export interface LogDestination {
  write(line: string): void;
}

/** @param destination takes the lines; stderr when left out */
export function createLogger(name: string, level: LogLevel, destination?: LogDestination): Logger {
  return pino(
    {
      name,
      level,
      redact: { paths: SECRETS, censor: "[secret]" },
      serializers: { err: serializeError, fault: serializeError },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }), log: (fields) => boundedFields(fields) },
      hooks: {
        logMethod(args, method) {
          const text = args.find((one) => typeof one === "string");
          const budget = budgetOf(this);
          if (budget?.take(text ?? "", (kind, leftOut) => tellLeftOut(this, kind, leftOut)) === false) return;
          const [first, second] = args;
          if (typeof first === "string") method.call(this, cutText(first));
          else if (typeof second === "string") method.call(this, first, cutText(second));
          else method.apply(this, args);
        },
        streamWrite: withoutSigns,
      },
    },
    destination ?? pino.destination({ dest: 2, sync: false, maxLength: BUFFERED_BYTES_MAX }),
  );
}

const budgets = new WeakMap<object, LineBudget>();

/**
 * Makes a logger whose lines, and the lines of its children, are written within a budget. A line counts in one budget
 * only: that of its own logger or of the nearest ancestor that has one.
 */
export function budgeted(logger: Logger, budget: LineBudget): Logger {
  const child = logger.child({});
  budgets.set(child, budget);
  return child;
}

function budgetOf(logger: object): LineBudget | undefined {
  // the prototype of a pino child is its parent
  for (let one: unknown = logger; typeof one === "object" && one !== null; one = Object.getPrototypeOf(one)) {
    const found = budgets.get(one);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Logs how many lines were left out. Such a line is of a kind of its own, which has its own share of the budget. */
const tellLeftOut = (logger: Logger, kind: string, leftOut: number): void =>
  logger.warn({ kind, leftOut }, "lines were left out");

/**
 * Makes the fields of an error: what happened, and for a fault also where the guest is and the advice. Only an
 * unexpected error has its stack logged: an `internal` fault, or an error that is no fault.
 */
function serializeError(thrown: unknown): Record<string, unknown> {
  return boundedFields(faultFields(thrown, 0));
}

/** The most causes of an error that are logged, each the cause of the one before. */
const CAUSES_MAX = 6;

function faultFields(thrown: unknown, depth: number): Record<string, unknown> {
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
  if (thrown.cause !== undefined && thrown.cause !== thrown && depth < CAUSES_MAX)
    line.cause = faultFields(thrown.cause, depth + 1);
  if (!known || thrown.code === "internal") line.stack = thrown.stack;
  return line;
}
