import { createInterface } from "node:readline/promises";

/** Where a command writes, and how wide that is. Handed in, so that tests read what an operator would see. */
export interface Terminal {
  /** Results and progress. */
  out(text: string): void;
  /** Errors. */
  err(text: string): void;
  /** May lines be redrawn in place? */
  readonly isInteractive: boolean;
  readonly columns: () => number;
  /** Asks a person; no wherever there is none. */
  readonly confirm: (question: string) => Promise<boolean>;
  readonly monotonicMs: () => number;
}

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
  monotonicMs: () => performance.now(),
});
