/**
 * The terminal of a command: where the command writes, and where it asks the person. The terminal is handed in, so that
 * tests read what an operator would see.
 */
import { createInterface } from "node:readline/promises";
import { systemClock } from "../shared/runtime/clock.ts";

export interface Terminal {
  /** Writes results and progress. */
  out(text: string): void;
  /** Writes errors. */
  err(text: string): void;
  /** True when lines may be redrawn in place. */
  readonly isInteractive: boolean;
  readonly columns: () => number;
  /** Asks the person at the terminal. The answer is no when there is no person. */
  readonly confirm: (question: string) => Promise<boolean>;
  readonly monotonicMs: () => number;
}

/** The width of a terminal that does not tell its width, columns. */
const COLUMNS_UNKNOWN = 100;

export const processTerminal = (): Terminal => ({
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  isInteractive: process.stdout.isTTY === true && process.env.TERM !== "dumb",
  columns: () => process.stdout.columns ?? COLUMNS_UNKNOWN,
  confirm: async (question) => {
    if (process.stdin.isTTY !== true || process.stderr.isTTY !== true) return false;
    const lines = createInterface({ input: process.stdin, output: process.stderr });
    try {
      return /^y(es)?$/i.test((await lines.question(`${question} [y/N] `)).trim());
    } finally {
      lines.close();
    }
  },
  monotonicMs: () => systemClock.monotonicMs(),
});
